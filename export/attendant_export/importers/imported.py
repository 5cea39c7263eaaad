"""What an importer returns: a model with its tokenizer and defaults."""

from dataclasses import dataclass

from attendant.v1 import embedding_pb2

from attendant_export.models.encoder import Encoder


@dataclass(frozen=True, slots=True)
class ImportedEncoder:
    """An embedding model of a checkpoint, whose ``tokenizer.json`` the bundle takes as it is."""

    family: str
    """Name of the family, such as ``bert``."""
    model: Encoder
    max_tokens: int
    """Limit of tokens of a text, special tokens included."""
    pooling: embedding_pb2.Pooling.ValueType = embedding_pb2.POOLING_MEAN
    normalize: bool = False
