"""Operations with weights as graph nodes, in fp32 or fp16.

Parameters have the names that the model gives them. Activations are (rows, width) between layers,
one row per token, so that every product is a product of two matrices. Does not depend on parts of
networks or on the inputs and outputs of graphs.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    ACTIVATION_TANH,
)

from attendant_export.graphs.builder import Array, GraphBuilder, Weights

Activation: TypeAlias = architecture_pb2.Activation.ValueType
WIDTH_UNIT = 64
"""`Layers.top_k_of_units` needs widths that are multiples of this."""


class Layers(GraphBuilder):
    """A graph with weights and activations of one float type."""

    def __init__(
        self,
        name: str,
        weights: Weights,
        parameters: Mapping[str, Array],
        dtype: type[np.floating[Any]],
    ) -> None:
        """``parameters`` are fp32 arrays by name; linear weights are (outputs, inputs)."""
        super().__init__(name, weights)
        self.parameters = parameters
        self.dtype = dtype

    def parameter(self, name: str) -> str:
        """A parameter of the network in the graph's float type."""
        return self.weight(name, lambda: self.parameters[name].astype(self.dtype, copy=False))

    def fp32_parameter(self, name: str) -> str:
        """A parameter of the network in fp32, whatever the graph's float type is."""
        return self.weight(name, lambda: self.parameters[name])

    def scalar(self, value: float) -> str:
        """A constant in the graph's float type."""
        return self.constant(np.array(value, self.dtype))

    def fp32(self, x: str) -> str:
        """``x``, of the graph's float type, converted to fp32."""
        return x if self.dtype == np.float32 else self.cast(x, np.float32)

    def rounded(self, x: str) -> str:
        """``x``, fp32, converted to the graph's float type."""
        return x if self.dtype == np.float32 else self.cast(x, self.dtype)

    def linear(self, x: str, name: str) -> str:
        """`nn.Linear`, with or without a bias: (rows, inputs) to (rows, outputs)."""
        weight = self.parameter(f"{name}.weight")
        bias = f"{name}.bias"
        inputs = [weight, self.parameter(bias)] if bias in self.parameters else [weight]
        return self.op("Gemm", x, *inputs, transB=1)

    def change_rows(self, may_be_none: bool = False) -> None:
        """Declare that later products have other numbers of rows, such as those of another text.

        With ``may_be_none``, they may have no rows at all.
        """

    def activation(self, x: str, kind: Activation) -> str:
        """Apply an activation to ``x``."""
        return _ACTIVATIONS[kind](self, x)

    def activation_between(self, x: str, kind: Activation) -> str:
        """Apply an activation to ``x`` (rows, width). Only linear layers use the result."""
        return self.activation(x, kind)

    def embed(self, token_ids: str, table: str, factor: float = 1.0) -> str:
        """`nn.Embedding` times ``factor``: token ids (rows) to (rows, d_model)."""
        vectors = self.op("Gather", self.parameter(table), token_ids)
        return vectors if factor == 1 else self.op("Mul", vectors, self.scalar(factor))

    def vocabulary_products(self, x: str, table: str, bias: str = "") -> str:
        """Products of ``x`` (rows, d_model) with all rows of a table: fp32 (rows, vocab).

        ``bias`` names a parameter (vocab) to add.
        """
        products = self.fp32(self.op("Gemm", x, self.parameter(table), transB=1))
        return self.op("Add", products, self.fp32_parameter(bias)) if bias else products

    def listed_products(self, x: str, table: str, listed: str) -> str:
        """Products of ``x`` (rows, d_model) with some rows of a table: fp32 (rows, listed).

        ``listed`` holds the numbers of these rows.
        """
        embeddings = self.op("Gather", self.parameter(table), listed)
        return self.fp32(self.op("Gemm", x, embeddings, transB=1))

    def top_k(self, x: str, k: str, width: int) -> tuple[str, str]:
        """Values and indices (rows, k) of the ``k`` largest of each row of ``x`` (rows, width).

        The largest come first. A wide row is split into blocks.
        """
        size = _block_size(width)
        if size is None:
            best, indices = self.ops("TopK", x, k, num_results=2)
            return best, indices
        return self._top_k_of_blocks(x, k, size, width // size)

    def top_k_of_units(self, x: str, k: str) -> tuple[str, str]:
        """`top_k` for rows of a dynamic width that is a multiple of `WIDTH_UNIT`."""
        return self._top_k_of_blocks(x, k, WIDTH_UNIT)

    def _top_k_of_blocks(
        self, x: str, k: str, size: int, num_blocks: int | None = None
    ) -> tuple[str, str]:
        """`top_k` with blocks of ``size``, whose number may be dynamic.

        The ``k`` blocks with the largest maxima contain all results, and one fast pass finds them.
        """
        shape = (0, -1, size) if num_blocks is None else (-1, num_blocks, size)
        blocks = self.op("Reshape", x, self.integers(*shape))
        maxima = self.op("ReduceMax", blocks, self.integers(-1), keepdims=0)  # (rows, blocks)
        most = (
            self.op("Shape", maxima, start=1) if num_blocks is None else self.integers(num_blocks)
        )
        _, chosen = self.ops("TopK", maxima, self.op("Min", k, most), num_results=2)  # (rows, k)
        first = self.op("Mul", chosen, self.integer(size))
        indices = self.op(
            "Add", self.op("Unsqueeze", first, self.integers(2)), self.constant(np.arange(size))
        )  # (rows, k, size)
        indices = self.op("Flatten", indices)  # (rows, k size)
        values = self.op("GatherElements", x, indices, axis=1)
        best, among = self.ops("TopK", values, k, num_results=2)
        return best, self.op("GatherElements", indices, among, axis=1)

    def layer_norm(self, x: str, name: str, epsilon: float) -> str:
        """`nn.LayerNorm`, with or without a bias, over each row, computed in fp32."""
        inputs, bias = [self.parameter(f"{name}.weight")], f"{name}.bias"
        if bias in self.parameters:
            inputs.append(self.parameter(bias))
        return self.op("LayerNormalization", x, *inputs, epsilon=epsilon)

    def rms_norm(self, x: str, name: str, epsilon: float) -> str:
        """`nn.RMSNorm` over each row, computed in fp32."""
        return self.op("RMSNormalization", x, self.parameter(f"{name}.weight"), epsilon=epsilon)

    def flat(self, token_ids: str) -> str:
        """``token_ids`` (batch, length) flattened to (rows)."""
        return self.op("Reshape", token_ids, self.integers(-1))

    def rows(self, x: str, width: int) -> str:
        """``x``, whose last dimensions multiply to ``width``, as (rows, width)."""
        return self.op("Reshape", x, self.integers(-1, width))

    def by_text(self, x: str, batch: str) -> str:
        """``x`` (rows, width) as (batch, length, width); ``batch`` holds (batch, length)."""
        return self.op("Reshape", x, self.op("Concat", batch, self.integers(-1), axis=0))

    def is_real(self, batch: str, lengths: str) -> str:
        """A mask (batch, length) of the real tokens of texts with the given ``lengths`` (batch).

        ``batch`` holds the shape (batch, length).
        """
        positions = self.positions(batch)
        return self.op("Less", positions, self.op("Unsqueeze", lengths, self.integers(1)))

    def positions(self, batch: str) -> str:
        """The positions (length) of tokens, from 0; ``batch`` holds the shape (batch, length)."""
        length = self.op("Gather", batch, self.integer(1))
        return self.op("Range", self.integer(0), length, self.integer(1))


_ACTIVATIONS: dict[Activation, Callable[[Layers, str], str]] = {
    ACTIVATION_RELU: lambda g, x: g.op("Relu", x),
    ACTIVATION_GELU: lambda g, x: g.op("Gelu", x),
    ACTIVATION_GELU_TANH: lambda g, x: g.op("Gelu", x, approximate="tanh"),
    ACTIVATION_SILU: lambda g, x: g.op("Mul", x, g.op("Sigmoid", x)),
    ACTIVATION_TANH: lambda g, x: g.op("Tanh", x),
}


def _block_size(width: int) -> int | None:
    """The divisor of ``width`` nearest its square root. None if blocks would not pay off."""
    root = math.isqrt(width)
    sizes = [size for size in range(root // 4 + 1, 4 * root) if width % size == 0]
    return min(sizes, key=lambda size: abs(size - root)) if root >= 32 and sizes else None
