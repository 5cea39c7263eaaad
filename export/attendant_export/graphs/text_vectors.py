"""Vectors of whole texts as graph nodes. The counterpart of `models.text_vectors`."""

from collections.abc import Callable

import numpy as np
from attendant.v1.architecture_pb2 import Architecture, Dense, TextVectors

from attendant_export.graphs.layers import Layers
from attendant_export.models.text_vectors import Pooling, poolings_of

NUM_PROMPT_TOKENS = "num_prompt_tokens"
"""Input of graphs that leave out a prompt: for each text, the number of its first tokens."""


def text_vectors(
    g: Layers, architecture: Architecture, token_ids: str, hidden: str, batch: str, lengths: str
) -> dict[Pooling, str]:
    """Each pooling of ``hidden`` (batch, length, d_model) in fp32 as (batch, dimension).

    ``token_ids`` are (batch, length), the shape that ``batch`` holds. The dense layers compute in
    fp32, too.
    """
    part = architecture.text_vectors
    has_layers = bool(architecture.encoder.groups)
    poolings = _Poolings(g, part, token_ids, hidden, batch, lengths, has_layers)
    return {
        name: _dense_layers(g, part, _POOLINGS[name](poolings))
        for name in poolings_of(architecture)
    }


class _Poolings:
    """Poolings of each text's tokens, without those of its prompt and the excluded one."""

    def __init__(
        self,
        g: Layers,
        part: TextVectors,
        token_ids: str,
        hidden: str,
        batch: str,
        lengths: str,
        has_layers: bool,
    ) -> None:
        self._g, self._hidden, self._batch, self._lengths = g, hidden, batch, lengths
        self._starts = ""
        is_real = g.is_real(batch, lengths)
        if part.excludes_prompt:
            prompts = g.input(NUM_PROMPT_TOKENS, np.int64, "batch")
            self._starts = g.op("Min", prompts, self._last())  # (batch)
            is_real = g.op("And", is_real, self._compare("GreaterOrEqual", self._starts))
        if part.HasField("excluded_token_id"):
            is_excluded = g.op("Equal", token_ids, g.integer(part.excluded_token_id))
            is_real = g.op("And", is_real, g.op("Not", is_excluded))
        self._is_real = g.op("Unsqueeze", is_real, g.integers(2))  # (batch, length, 1)
        self._has_any = ""
        counts = lengths if not part.excludes_prompt else g.op("Sub", lengths, self._starts)
        if part.HasField("excluded_token_id"):
            counts = g.op("ReduceSum", g.cast(is_real, np.int64), g.integers(1), keepdims=0)
            has_any = g.op("Greater", counts, g.integer(0))
            self._has_any = g.op("Unsqueeze", has_any, g.integers(1))  # (batch, 1)
            counts = g.op("Max", counts, g.integer(1))
        self._counts = g.op("Unsqueeze", counts, g.integers(1))  # (batch, 1)
        self._zero, lowest = (g.constant(np.array(value, np.float32)) for value in (0, -np.inf))
        self._terms = g.op("Where", self._is_real, hidden, self._zero) if has_layers else ""
        self._candidates = g.op("Where", self._is_real, hidden, lowest)
        self._total = self._sum(self._terms) if has_layers else self._product(is_real)

    def mean(self) -> str:
        return self._g.op("Div", self._total, self._g.cast(self._counts, np.float32))

    def mean_sqrt_length(self) -> str:
        root = self._g.op("Sqrt", self._g.cast(self._counts, np.float32))
        return self._g.op("Div", self._total, root)

    def weighted_mean(self) -> str:
        g = self._g
        numbers = g.op("Add", g.positions(self._batch), g.integer(1))
        column = g.op("Unsqueeze", g.cast(numbers, np.float32), g.integers(1))  # (length, 1)
        zero = g.constant(np.array(0, np.float32))
        weights = g.op("Where", self._is_real, column, zero)  # (batch, length, 1)
        terms = self._terms or g.op("Where", self._is_real, self._hidden, self._zero)
        weighted, total = self._sum(g.op("Mul", terms, weights)), self._sum(weights)
        if self._has_any:
            total = g.op("Max", total, g.constant(np.array(1, np.float32)))
        return g.op("Div", weighted, total)

    def max(self) -> str:
        largest = self._g.op("ReduceMax", self._candidates, self._g.integers(1), keepdims=0)
        return self._g.op("Where", self._has_any, largest, self._zero) if self._has_any else largest

    def cls(self) -> str:
        if self._starts:
            return self._token(self._starts)
        return self._g.op("Gather", self._hidden, self._g.integer(0), axis=1)

    def last(self) -> str:
        return self._token(self._last())

    def _last(self) -> str:
        """Positions (batch) of the last tokens."""
        return self._g.op("Sub", self._lengths, self._g.integer(1))

    def _token(self, positions: str) -> str:
        """The vector of each text's token at ``positions`` (batch)."""
        indices = self._g.op("Unsqueeze", positions, self._g.integers(1))
        return self._g.op("GatherND", self._hidden, indices, batch_dims=1)

    def _compare(self, op: str, starts: str) -> str:
        """Comparison (batch, length) of every position with ``starts`` (batch)."""
        column = self._g.op("Unsqueeze", starts, self._g.integers(1))
        return self._g.op(op, self._g.positions(self._batch), column)

    def _product(self, is_real: str) -> str:
        """The sum of the vectors where ``is_real`` (batch, length) is true.

        Several times faster than the sum of a masked copy, which is most of the time without
        layers.
        """
        mask = self._g.op("Unsqueeze", self._g.cast(is_real, np.float32), self._g.integers(1))
        return self._g.op("Squeeze", self._g.op("MatMul", mask, self._hidden), self._g.integers(1))

    def _sum(self, x: str) -> str:
        return self._g.op("ReduceSum", x, self._g.integers(1), keepdims=0)


_POOLINGS: dict[Pooling, Callable[[_Poolings], str]] = {
    "mean": _Poolings.mean,
    "cls": _Poolings.cls,
    "max": _Poolings.max,
    "last": _Poolings.last,
    "weighted_mean": _Poolings.weighted_mean,
    "mean_sqrt_length": _Poolings.mean_sqrt_length,
}


def _dense_layers(g: Layers, part: TextVectors, x: str) -> str:
    """``x`` (batch, d_model) after the dense layers: (batch, dimension)."""
    for number, dense in enumerate(part.dense_layers):
        x = dense_layer(g, dense, f"dense.{number}", x)
    return x


def dense_layer(g: Layers, part: Dense, name: str, x: str) -> str:
    """``x`` (batch, inputs) in fp32 after a linear layer with its activation."""
    names = [f"{name}.linear.weight", *[f"{name}.linear.bias"] * part.has_bias]
    x = g.op("Gemm", x, *map(g.fp32_parameter, names), transB=1)
    return g.activation(x, part.activation) if part.activation else x
