"""Vectors of whole texts: poolings of hidden states, followed by dense layers."""

from collections.abc import Mapping
from typing import Literal

import torch
from attendant.v1 import architecture_pb2, embedding_pb2
from attendant.v1.architecture_pb2 import Architecture, Dense
from attendant.v1.embedding_pb2 import (
    POOLING_CLS,
    POOLING_LAST,
    POOLING_MAX,
    POOLING_MEAN,
    POOLING_MEAN_SQRT_LENGTH,
    POOLING_WEIGHTED_MEAN,
)
from torch import Tensor, nn

from attendant_export.models.feed_forward import Activation
from attendant_export.models.unsupported import check_at_least_one

Pooling = Literal["mean", "cls", "max", "last", "weighted_mean", "mean_sqrt_length"]

POOLINGS: Mapping[embedding_pb2.Pooling.ValueType, Pooling] = {
    POOLING_MEAN: "mean",
    POOLING_CLS: "cls",
    POOLING_MAX: "max",
    POOLING_LAST: "last",
    POOLING_WEIGHTED_MEAN: "weighted_mean",
    POOLING_MEAN_SQRT_LENGTH: "mean_sqrt_length",
}
COMMON_POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "max")
"""The poolings of every encoder."""


def poolings_of(architecture: Architecture) -> tuple[Pooling, ...]:
    """The poolings of an encoder. Raises ValueError for an unknown one."""
    part = architecture.text_vectors
    for number in part.additional_poolings:
        if POOLINGS.get(number, "mean") in COMMON_POOLINGS:
            raise ValueError(f"TextVectors.additional_poolings: {number} is not supported")
    return COMMON_POOLINGS + tuple(POOLINGS[number] for number in part.additional_poolings)


def pool(
    hidden: Tensor,
    mask: Tensor,
    pooling: Pooling,
    num_prompt_tokens: int = 0,
    is_excluded: Tensor | None = None,
) -> Tensor:
    """One vector per sequence, not normalized, from ``hidden`` (batch, length, d_model).

    ``mask`` (batch, length) is True at real tokens, [CLS] and [SEP] included, and False at the
    padding after them. The first ``num_prompt_tokens`` tokens are left out, except the last token.
    ``mean``, ``max`` and the other means run over the remaining tokens, ``cls`` and ``last`` take
    the first and the last one. The weight of a token in ``weighted_mean`` is its position, from 1.
    The means and ``max`` also leave out tokens where ``is_excluded`` (batch, length) is True; they
    are zero if no token is left. Returns (batch, d_model).
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    ends = mask.sum(dim=1) - 1  # (batch)
    starts = ends.clamp(max=num_prompt_tokens)
    if pooling in ("cls", "last"):
        rows = torch.arange(len(hidden), device=mask.device)
        return hidden[rows, starts if pooling == "cls" else ends]
    mask = mask & (positions >= starts[:, None])
    if is_excluded is not None:
        mask = mask & ~is_excluded
    mask = mask.unsqueeze(-1)  # (batch, length, 1)
    if pooling == "max":
        largest = hidden.masked_fill(~mask, float("-inf")).amax(dim=1)
        return largest.masked_fill(~mask.any(dim=1), 0)
    if pooling == "weighted_mean":
        weights = mask * (positions[:, None] + 1)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    total, count = (hidden * mask).sum(dim=1), mask.sum(dim=1).clamp(min=1)
    return total / (count if pooling == "mean" else count.sqrt())


class DenseLayers(nn.Sequential):
    """Dense layers of pooled vectors or of tokens: (..., d_model) to (..., dimension)."""

    def __init__(
        self, part: architecture_pb2.TextVectors | architecture_pb2.TokenVectors, d_model: int
    ) -> None:
        widths = [d_model, *(dense.d_output for dense in part.dense_layers)]
        super().__init__(*map(dense_layer, part.dense_layers, widths))
        self.part = part


def dense_layer(part: Dense, d_input: int) -> nn.Module:
    """A linear layer with its activation: (batch, d_input) to (batch, d_output)."""
    check_at_least_one(part, "d_output")
    linear = nn.Linear(d_input, part.d_output, bias=part.has_bias)
    layer = nn.Sequential()
    layer.add_module("linear", linear)
    if part.activation:
        layer.add_module("activation", Activation(part, "activation"))
    return layer
