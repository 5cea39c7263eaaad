"""Folders of cross-encoders as sentence-transformers writes them from version 6 on.

The model is one module, and its function of scores is in the settings of the package. Earlier
versions write no list of modules; the function is then in ``config.json``.
"""

from dataclasses import replace

from attendant.v1.bundle_pb2 import Classification

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.classification import FUNCTIONS
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.prompts import SETTINGS, read_prompts
from attendant_export.importers.sentence_transformers import (
    MAX_SEQ_LENGTH,
    MODULES,
    Module,
    encoder_settings,
    listed_modules,
)

ENCODER_SETTINGS = {
    "transformer_task": "sequence-classification",
    "do_lower_case": False,
    "module_output_name": "scores",
    "modality_config": None,
}
MODALITIES = {"text": {"method": "forward", "method_output_name": "logits"}}


def with_cross_encoder_defaults(
    encoder: ImportedEncoder, checkpoint: Checkpoint
) -> ImportedEncoder:
    """``encoder`` with the settings of its folder. Raises CheckpointError for other modules."""
    _check_modules(checkpoint)
    if read_prompts(checkpoint, encoder.tokenizer).texts:
        raise CheckpointError(
            f"{checkpoint.folder / SETTINGS}: prompts of a cross-encoder are not supported"
        )
    settings = encoder_settings(checkpoint)
    fields = {name: settings.get(name) for name in settings}
    if fields.get("modality_config") == MODALITIES:
        del fields["modality_config"]
    settings = Config(settings.path, fields)
    settings.require(**ENCODER_SETTINGS)
    settings.require_empty("processing_kwargs")
    return replace(
        encoder.with_stated_limit(settings, MAX_SEQ_LENGTH),
        classification=_classification(encoder.classification, checkpoint),
    )


def _check_modules(checkpoint: Checkpoint) -> None:
    modules = listed_modules(checkpoint)
    if modules != [Module("Transformer", "")]:
        names = ", ".join(module.name for module in modules)
        raise CheckpointError(
            f"{checkpoint.folder / MODULES}: the modules {names} are not supported for a "
            "classification head; supported: Transformer alone"
        )


def _classification(found: Classification | None, checkpoint: Checkpoint) -> Classification | None:
    """The labels, with the function of scores that the settings state."""
    config = checkpoint.options(SETTINGS)
    if "activation_fn" not in config:
        return found
    function = config.choice("activation_fn", FUNCTIONS)
    return Classification(labels=found.labels if found else (), score_function=function)
