"""Multi-head attention. Past keys and values are explicit arguments and results.

Cached and uncached decoding are therefore the same code.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from attendant.v1 import architecture_pb2
from torch import Tensor, nn

from attendant_export.models.rotary_positions import check_rotary_positions, rotate
from attendant_export.models.unsupported import check_at_least_one, unsupported

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one attention layer, each (batch, heads, length, head_dim)."""


def num_key_value_heads(part: architecture_pb2.Attention) -> int:
    """The number of heads of keys and values, which may be less than that of queries."""
    return part.num_key_value_heads or part.num_heads


def projection_widths(part: architecture_pb2.Attention) -> tuple[int, int, int]:
    """The widths of queries, keys and values with all of their heads."""
    key_value_width = num_key_value_heads(part) * part.head_dim
    return part.num_heads * part.head_dim, key_value_width, key_value_width


class MultiHeadAttention(nn.Module):
    """Multi-head scaled dot-product attention, self or cross ("Attention Is All You Need", 3.2).

    One fused projection holds query, key and value weights in this order. Cross-attention applies
    the first third to the decoder's hidden states and the rest, once, to the encoder's output.
    """

    def __init__(self, part: architecture_pb2.Attention, d_model: int) -> None:
        super().__init__()
        _check(part)
        self._part, self._widths = part, projection_widths(part)
        self.is_causal = part.is_causal
        self.inner = self._widths[0]
        self.scale = part.scale or None
        self.query_key_value = nn.Linear(d_model, sum(self._widths), bias=part.has_bias)
        if part.HasField("query_key_norm"):
            epsilon = part.query_key_norm.epsilon
            self.query_norm = nn.RMSNorm(part.head_dim, eps=epsilon)
            self.key_norm = nn.RMSNorm(part.head_dim, eps=epsilon)
        self.output = nn.Linear(self.inner, d_model, bias=part.has_bias)
        self.on_weights: Callable[[Tensor], None] | None = None
        """Receives the weights (batch, heads, queries, keys) of each run, if set."""
        for weight in self.query_key_value.weight.data.split(self._widths):
            nn.init.xavier_uniform_(weight)
        nn.init.xavier_uniform_(self.output.weight)
        if part.has_bias:
            nn.init.zeros_(self.query_key_value.bias)
            nn.init.zeros_(self.output.bias)

    def split_heads(self, x: Tensor) -> Tensor:
        """(batch, length, heads * head_dim) to (batch, heads, length, head_dim)."""
        heads: Tensor = x.unflatten(-1, (-1, self._part.head_dim))
        return heads.transpose(1, 2)

    def project_memory(self, memory: Tensor) -> KeyValue:
        """Keys and values of cross-attention from the encoder's output (batch, source, d_model)."""
        keys, values = self._project(memory, slice(self.inner, None)).chunk(2, dim=-1)
        return self.split_heads(keys), self.split_heads(values)

    def attend(self, x: Tensor, memory: KeyValue, mask: Tensor | None) -> Tensor:
        """Cross-attention of ``x`` (batch, target, d_model) over projected ``memory``."""
        query = self.split_heads(self._project(x, slice(self.inner)))
        if self.on_weights is not None:
            self.on_weights(self._weights(query, memory[0], mask))
        return self._weighted_values(query, *memory, mask=mask)

    def _weights(self, query: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """The weights (batch, heads, queries, keys) by which values are added up.

        ``mask`` is boolean, or added to the scores.
        """
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        keys = keys.repeat_interleave(query.shape[1] // keys.shape[1], dim=1)
        scores = query @ keys.transpose(-1, -2) * scale
        if mask is None:
            return scores.softmax(-1)
        is_seen = mask.dtype == torch.bool
        return (scores.masked_fill(~mask, -torch.inf) if is_seen else scores + mask).softmax(-1)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        past: KeyValue | None = None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """Self-attention of ``x`` (batch, length, d_model) over ``past`` followed by ``x``.

        ``mask`` is boolean and broadcasts to (batch, heads, length, past + length): True attends.
        Causal attention also masks later positions, and local attention distant ones. ``bias``, of
        the same shape, is added to the scores. Returns the output, shaped like ``x``, and the keys
        and values including the past.
        """
        fused = self.query_key_value(x).split(self._widths, dim=-1)
        query, keys, values = map(self.split_heads, fused)
        if self._part.HasField("query_key_norm"):
            query, keys = self.query_norm(query), self.key_norm(keys)
        if self._part.HasField("rotary_positions"):
            num_past = 0 if past is None else past[0].shape[2]
            query, keys = (rotate(self._part, each, num_past) for each in (query, keys))
        if past is not None:
            keys = torch.cat([past[0], keys], dim=2)  # (batch, heads, past + length, head_dim)
            values = torch.cat([past[1], values], dim=2)
        if self.is_causal:
            causal = _causal_mask(x.shape[1], keys.shape[2], x.device)
            mask = causal if mask is None else mask & causal
        if self._part.window:
            local = _local_mask(self._part.window, x.shape[1], keys.shape[2], x.device)
            mask = local if mask is None else mask & local
        if bias is not None:
            mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
        if self.on_weights is not None:
            self.on_weights(self._weights(query, keys, mask))
        return self._weighted_values(query, keys, values, mask), (keys, values)

    def _project(self, x: Tensor, outputs: slice) -> Tensor:
        bias = self.query_key_value.bias
        return F.linear(
            x, self.query_key_value.weight[outputs], None if bias is None else bias[outputs]
        )

    def _weighted_values(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        heads = _attend(
            query,
            keys,
            values,
            attn_mask=mask,
            scale=self.scale,
            enable_gqa=keys.shape[1] != query.shape[1],
        )
        return self.output(heads.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _attend(query: Tensor, keys: Tensor, values: Tensor, **options: Any) -> Tensor:
    """Scaled dot-product attention, on a CPU always in float32.

    PyTorch's operation for CPUs was ten times slower in bfloat16, forward and backward together.
    """
    if query.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(query, keys, values, **options)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(
            query.float(), keys.float(), values.float(), **options
        )


def _check(part: architecture_pb2.Attention) -> None:
    check_at_least_one(part, "num_heads", "head_dim")
    check_rotary_positions(part)
    if part.num_heads % num_key_value_heads(part):
        raise unsupported(part, "num_key_value_heads", f"does not divide {part.num_heads} heads")
    if part.HasField("query_key_norm") and not part.query_key_norm.epsilon > 0:
        raise unsupported(part.query_key_norm, "epsilon", "is not positive")


def _causal_mask(length: int, total_length: int, device: torch.device) -> Tensor:
    """A mask (length, total_length): the positions that each of the last ``length`` attends to."""
    mask = torch.ones(length, total_length, dtype=torch.bool, device=device)
    return mask.tril(total_length - length)


def _local_mask(window: int, length: int, total_length: int, device: torch.device) -> Tensor:
    """A mask (length, total_length): the positions that are at most ``window`` away."""
    positions = torch.arange(total_length, device=device)
    return (positions - positions[total_length - length :, None]).abs() <= window
