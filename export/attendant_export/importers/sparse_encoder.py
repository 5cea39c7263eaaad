"""Folders of SPLADE models, as ``SparseEncoder`` of sentence-transformers writes them.

The modules are a masked language model and ``SpladePooling``, which makes one vector over the
vocabulary from its scores.
"""

import logging
import re
from dataclasses import replace

from attendant.v1.architecture_pb2 import SparseVectors
from attendant.v1.bundle_pb2 import EmbeddingDefaults
from attendant.v1.embedding_pb2 import POOLING_MEAN

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.prompts import SETTINGS, read_prompts
from attendant_export.importers.sentence_transformers import (
    MAX_SEQ_LENGTH,
    MODULES,
    Module,
    check_encoder_settings,
    check_folders,
    is_sentence_transformer,
    listed_modules,
    module_config,
)

POOLING = "SpladePooling"
NAMES = re.compile("splade|neural-sparse")
TASKS = {"MLMTransformer": "fill-mask", "Transformer": "feature-extraction"}
"""The supported first modules with the tasks that they have by default."""
logger = logging.getLogger(__name__)

MODALITIES = {"text": {"method": "forward", "method_output_name": "logits"}}


def is_splade(checkpoint: Checkpoint) -> bool:
    """Whether a module of the checkpoint's list pools scores of a vocabulary."""
    return is_sentence_transformer(checkpoint) and any(
        module.name == POOLING for module in listed_modules(checkpoint)
    )


def warn_of_splade(checkpoint: Checkpoint) -> None:
    """Warn if the name of a checkpoint without modules says that it makes sparse vectors."""
    if NAMES.search(checkpoint.name.lower()):
        logger.warning(
            "%s has no %s, so that it is imported without sparse vectors: save it by SparseEncoder "
            "of sentence-transformers first",
            *(checkpoint.title, MODULES),
        )


def with_sparse_vectors(encoder: ImportedEncoder, checkpoint: Checkpoint) -> ImportedEncoder:
    """``encoder`` with sparse vectors and the defaults of its folder; raises CheckpointError."""
    first, pooling = _modules(checkpoint)
    architecture = encoder.model.architecture
    if not architecture.HasField("head"):
        raise CheckpointError(
            f"{checkpoint.folder / MODULES}: {POOLING} needs a masked-language-model head, and the "
            "checkpoint has no weights of one"
        )
    settings = check_encoder_settings(checkpoint, "fill-mask", MODALITIES, TASKS[first.name])
    architecture.sparse_vectors.CopyFrom(_pooling(checkpoint, pooling))
    prompts, options = read_prompts(checkpoint, encoder.tokenizer), checkpoint.options(SETTINGS)
    return replace(
        encoder.with_stated_limit(settings, MAX_SEQ_LENGTH),
        defaults=EmbeddingDefaults(
            pooling=POOLING_MEAN,
            prompts=prompts.texts,
            default_prompt=prompts.default,
            max_active_dims=options.integer("max_active_dims", default=0, minimum=0),
        ),
    )


def _modules(checkpoint: Checkpoint) -> list[Module]:
    """The masked language model and its pooling; raises CheckpointError for other modules."""
    path, modules = checkpoint.folder / MODULES, listed_modules(checkpoint)
    names = [module.name for module in modules]
    if names[0] not in TASKS or names[1:] != [POOLING] or modules[0].path not in ("", "."):
        raise CheckpointError(
            f"{path}: the modules {', '.join(names)} are not supported; supported with {POOLING}: "
            f"{' or '.join(TASKS)} in the folder itself, then {POOLING}"
        )
    check_folders(path, modules[1:])
    return modules


def _pooling(checkpoint: Checkpoint, module: Module) -> SparseVectors:
    config = module_config(checkpoint, module)
    return SparseVectors(
        is_sum=config.choice("pooling_strategy", {"max": False, "sum": True}, "max"),
        num_logarithms=config.choice("activation_function", {"relu": 1, "log1p_relu": 2}, "relu"),
    )
