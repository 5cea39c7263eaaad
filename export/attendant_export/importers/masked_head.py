"""Heads of masked language models whose projection is stored beside the table of embeddings."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from attendant.v1.architecture_pb2 import Architecture

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.weight_names import WeightTable

TABLE, PROJECTION, BIAS = "embedding.weight", "mask_head.projection.weight", "mask_head.bias"
"""Our names of the table of embeddings, of a projection of its own, and of the head's bias."""

logger = logging.getLogger(__name__)


def read_head_as_stored(
    architecture: Architecture, weights: WeightTable, checkpoint: Checkpoint
) -> WeightTable:
    """``weights`` that read the projection and the bias of the head as ``transformers`` 5 does.

    A stored projection that differs from the table of embeddings is used as it is: the head of
    ``architecture`` is then not tied. A stored bias of the projection is that of the head.
    Raises CheckpointError for a head that is not tied and has no projection.
    """
    shapes, (repeating,) = checkpoint.weights.shapes, weights.repeated
    is_tied = checkpoint.config.flag("tie_word_embeddings", default=True)
    stored_bias = repeating.removesuffix("weight") + "bias"
    wanted = [repeating, stored_bias] if architecture.head.has_bias else [repeating]
    missing = [name for name in wanted if name not in shapes]
    if missing and not is_tied:
        raise CheckpointError(
            f"{checkpoint.config.path}: tie_word_embeddings is False, but the weights lack "
            f"{', '.join(missing)}"
        )
    if stored_bias in wanted and stored_bias not in missing:
        weights = _with_bias(weights, stored_bias, shapes)
    if repeating not in shapes or _repeats_table(repeating, weights, checkpoint):
        return weights
    if is_tied:
        logger.warning(
            "%s differs from the table of embeddings, so masked words are scored with it, as by "
            "transformers 5; earlier versions use the table",
            repeating,
        )
    architecture.head.is_tied = False
    whole_names = {**weights.whole_names, PROJECTION: repeating}
    return replace(weights, whole_names=whole_names, repeated={})


def _with_bias(weights: WeightTable, stored: str, shapes: Mapping[str, object]) -> WeightTable:
    """``weights`` that read the bias ``stored``, and not another one that it replaces."""
    (replaced,) = weights.stored_names(BIAS, shapes)
    return replace(
        weights,
        whole_names={**weights.whole_names, BIAS: stored},
        ignored=(*weights.ignored, re.escape(replaced)),
    )


def _repeats_table(name: str, weights: WeightTable, checkpoint: Checkpoint) -> bool:
    (table,) = weights.stored_names(TABLE, checkpoint.weights.shapes)
    if table not in checkpoint.weights.shapes:
        return True  # The missing table is refused with all other missing tensors.
    return torch.equal(checkpoint.weights.read(name), checkpoint.weights.read(table))
