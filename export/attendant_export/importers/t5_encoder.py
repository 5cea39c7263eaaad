"""Encoders of T5 and mT5 as embedding models, such as sentence-t5 and gtr-t5."""

import re

from attendant.v1.architecture_pb2 import Architecture, Embeddings

from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.imported import ImportedEncoder, load_encoder
from attendant_export.importers.sentence_transformers import is_sentence_transformer
from attendant_export.importers.special_tokens import surrounding_tokens
from attendant_export.importers.t5 import (
    TABLES,
    embedding_table,
    read_stack,
    relative_bias_name,
    stack_names,
)
from attendant_export.importers.weight_names import WeightTable

CLASS_SUFFIX = "EncoderModel"
DECODER = (r"decoder\..+", r"lm_head\.weight")
"""Tensors of the decoder, which is left out."""


def is_t5_encoder(checkpoint: Checkpoint) -> bool:
    """Whether a T5 checkpoint is an embedding model: a sentence-transformer, or an encoder."""
    stated = checkpoint.config.get("architectures", [])
    classes = stated if isinstance(stated, list) else []
    is_encoder = any(str(name).endswith(CLASS_SUFFIX) for name in classes)
    return is_encoder or is_sentence_transformer(checkpoint)


def read_t5_encoder(checkpoint: Checkpoint) -> ImportedEncoder:
    """The encoder of a T5 checkpoint; raises CheckpointError."""
    config = checkpoint.config
    architecture = Architecture(
        d_model=config.integer("d_model"),
        source_embeddings=Embeddings(vocab_size=config.integer("vocab_size")),
        encoder=read_stack(config, config.num_layers("num_layers")),
    )
    table = embedding_table(checkpoint.weights)
    names = {
        "embedding": table.removesuffix(".weight"),
        "relative_positions": relative_bias_name("encoder"),
        **stack_names("encoder", architecture.encoder),
    }
    repeated = [re.escape(name) for name in TABLES if name != table]
    weights = WeightTable(names=names, ignored=[*repeated, *DECODER])
    tokens = surrounding_tokens(checkpoint)
    return load_encoder(config.get("model_type"), architecture, checkpoint, weights, tokens=tokens)
