"""The families of models that can be imported."""

from collections.abc import Callable, Mapping

from attendant_export.importers.bert import read_bert
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.distilbert import read_distilbert
from attendant_export.importers.imported import ImportedEncoder, ImportedTranslator
from attendant_export.importers.marian import read_marian
from attendant_export.importers.mpnet import read_mpnet
from attendant_export.importers.roberta import read_roberta
from attendant_export.importers.sentence_transformers import is_sentence_transformer, with_defaults
from attendant_export.importers.t5 import read_t5

Imported = ImportedEncoder | ImportedTranslator

FAMILIES: Mapping[str, Callable[[Checkpoint], Imported]] = {
    "bert": read_bert,
    "camembert": read_roberta,
    "distilbert": read_distilbert,
    "marian": read_marian,
    "mpnet": read_mpnet,
    "mt5": read_t5,
    "roberta": read_roberta,
    "t5": read_t5,
    "xlm-roberta": read_roberta,
}
"""The importer of each ``model_type`` of a configuration."""


def read_model(checkpoint: Checkpoint) -> Imported:
    """The model of a checkpoint. Raises CheckpointError for another family, naming those known."""
    read = checkpoint.config.choice("model_type", FAMILIES)
    imported: Imported = read(checkpoint)
    if isinstance(imported, ImportedEncoder) and is_sentence_transformer(checkpoint):
        return with_defaults(imported, checkpoint)
    return imported
