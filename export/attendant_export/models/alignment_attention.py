"""Attention by an alignment function, with one head, to the outputs of the encoder.

Luong et al. (2015), "Effective Approaches to Attention-based Neural Machine Translation", section
3; the additive function is that of Bahdanau et al. (2014), appendix A.1.2.
"""

from collections.abc import Callable

import torch
from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import (
    ALIGNMENT_FUNCTION_ADDITIVE,
    ALIGNMENT_FUNCTION_DOT,
    ALIGNMENT_FUNCTION_GENERAL,
    ALIGNMENT_FUNCTION_SCALED_DOT,
)
from torch import Tensor, nn

from attendant_export.models.attention import KeyValue
from attendant_export.models.unsupported import unsupported

MAX_HALF_WIDTH = 4096
FUNCTIONS = (
    ALIGNMENT_FUNCTION_DOT,
    ALIGNMENT_FUNCTION_SCALED_DOT,
    ALIGNMENT_FUNCTION_GENERAL,
    ALIGNMENT_FUNCTION_ADDITIVE,
)
WITH_QUERY = (ALIGNMENT_FUNCTION_GENERAL, ALIGNMENT_FUNCTION_ADDITIVE)
"""Functions that project the decoder's state."""


class AlignmentAttention(nn.Module):
    """The attention of one layer of a decoder. `architecture.proto` has its equations."""

    def __init__(self, part: architecture_pb2.AlignmentAttention, d_model: int) -> None:
        super().__init__()
        _check(part)
        self._part = part
        if part.function in WITH_QUERY:
            self.query = _linear(d_model, d_model)
        if part.function == ALIGNMENT_FUNCTION_ADDITIVE:
            self.key, self.score = _linear(d_model, d_model), _linear(d_model, 1)
        if part.window.is_predictive:
            self.position = _linear(d_model, d_model)
            self.position_score = _linear(d_model, 1)
        self.output = _linear(2 * d_model, d_model)
        self.on_weights: Callable[[Tensor], None] | None = None
        """Receives the weights (batch, 1, queries, keys) of each run, scaled to a sum of 1, if
        set."""

    def project_memory(self, memory: Tensor) -> KeyValue:
        """Keys and values (batch, 1, source, d_model) of the encoder's output."""
        is_additive = self._part.function == ALIGNMENT_FUNCTION_ADDITIVE
        keys = self.key(memory) if is_additive else memory
        return keys[:, None], memory[:, None]

    def attend(
        self, x: Tensor, memory: KeyValue, mask: Tensor | None, first_position: int = 0
    ) -> Tensor:
        """The output, shaped like the decoder's states ``x`` (batch, target, d_model).

        ``memory`` is that of `project_memory`, and ``mask`` (batch, 1, 1, source) is False for
        padding. ``first_position`` is the number of tokens of the target before ``x``.
        """
        keys, values = memory[0][:, 0], memory[1][:, 0]  # (batch, source, d_model)
        is_real = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask[:, 0, 0]
        weights = self._weights(x, keys, is_real, first_position)
        if self.on_weights is not None:
            self.on_weights((weights / weights.sum(-1, keepdim=True))[:, None])
        context = weights.to(values.dtype) @ values
        return torch.tanh(self.output(torch.cat([context, x], dim=-1)))

    def _weights(self, x: Tensor, keys: Tensor, is_real: Tensor, first_position: int) -> Tensor:
        """The weights (batch, target, source), in fp32."""
        scores, is_seen = self._scores(x, keys).float(), is_real[:, None, :]
        if not self._part.HasField("window"):
            return scores.masked_fill(~is_seen, -torch.inf).softmax(-1)
        width = self._part.window.half_width
        distances = self._distances(x, is_real, first_position)  # (batch, target, source)
        is_seen = is_seen & (distances.abs() <= width)
        weights = scores.masked_fill(~is_seen, -torch.inf).softmax(-1)
        if not self._part.window.is_predictive:
            return weights
        deviation = width / 2
        return weights * torch.exp(-distances.square() / (2 * deviation**2))

    def _scores(self, x: Tensor, keys: Tensor) -> Tensor:
        """Scores (batch, target, source) of states and keys."""
        query = self.query(x) if self._part.function in WITH_QUERY else x
        if self._part.function == ALIGNMENT_FUNCTION_ADDITIVE:
            both = torch.tanh(query[:, :, None] + keys[:, None])  # (batch, target, source, d_model)
            scores: Tensor = self.score(both)[..., 0]
            return scores
        products = query @ keys.transpose(1, 2)
        is_scaled = self._part.function == ALIGNMENT_FUNCTION_SCALED_DOT
        return products * x.shape[-1] ** -0.5 if is_scaled else products

    def _distances(self, x: Tensor, is_real: Tensor, first_position: int) -> Tensor:
        """Distances (batch, target, source) of source positions to the middle of the window."""
        lengths = is_real.sum(1)[:, None]  # (batch, 1)
        if self._part.window.is_predictive:
            score = self.position_score(torch.tanh(self.position(x)))[..., 0].float()
            middle = lengths * torch.sigmoid(score)  # (batch, target)
        else:
            target = torch.arange(x.shape[1], device=x.device) + first_position
            middle = torch.minimum(target, lengths - 1).float()
        return torch.arange(is_real.shape[1], device=x.device) - middle[:, :, None]


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.xavier_uniform_(linear.weight)
    return linear


def _check(part: architecture_pb2.AlignmentAttention) -> None:
    if part.function not in FUNCTIONS:
        raise unsupported(part, "function")
    if part.HasField("window") and not 1 <= part.window.half_width <= MAX_HALF_WIDTH:
        raise unsupported(part.window, "half_width", f"is not between 1 and {MAX_HALF_WIDTH}")
