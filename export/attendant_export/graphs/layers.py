"""Layers of Transformer and BERT as graph nodes, in fp32 or fp16.

Mirrors transformer.py's modules one to one and takes their parameters by their state-dict names.
Activations are (rows, d_model) between layers, a row being one token of one text, so that every
product is of two matrices. Knows no inputs and outputs of graphs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from attendant_export.graphs.builder import MICROSOFT, Array, GraphBuilder, WeightFile

Sublayer = Callable[[str], str]
"""Adds nodes behind one value and returns their result."""


@dataclass(frozen=True, slots=True)
class Network:
    """What all graphs of one model have in common."""

    parameters: Mapping[str, Array]
    """fp32 arrays by name; weights of linear layers are (outputs, inputs)."""
    d_model: int
    num_heads: int
    norm_first: bool
    layer_norm_epsilon: float
    activation: str
    """The ONNX operator between the two layers of the feed-forward network."""

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_heads


def fp32_parameters(model: nn.Module) -> dict[str, Array]:
    """The parameters of ``model`` by their state-dict names."""
    return {name: value.float().cpu().numpy() for name, value in model.state_dict().items()}


def layer_norm_epsilon(model: nn.Module) -> float:
    """The epsilon of all layer norms of ``model``; ValueError if they differ."""
    (epsilon,) = {norm.eps for norm in model.modules() if isinstance(norm, nn.LayerNorm)}
    return epsilon


class Layers(GraphBuilder):
    """A graph with weights and activations of one float type."""

    def __init__(
        self, name: str, weights: WeightFile, network: Network, dtype: type[np.floating[Any]]
    ) -> None:
        super().__init__(name, weights)
        self.network = network
        self.dtype = dtype

    def parameter(self, name: str) -> str:
        """A parameter of the network in the graph's float type."""
        return self.weight(name, self.network.parameters[name].astype(self.dtype))

    def scalar(self, value: float) -> str:
        """A constant in the graph's float type."""
        return self.constant(np.array(value, self.dtype))

    def fp32(self, x: str) -> str:
        """``x``, which has the graph's float type, as fp32."""
        return x if self.dtype == np.float32 else self.cast(x, np.float32)

    def linear(self, x: str, name: str) -> str:
        """`nn.Linear`: (rows, inputs) to (rows, outputs)."""
        weight, bias = self.parameter(f"{name}.weight"), self.parameter(f"{name}.bias")
        return self.op("Gemm", x, weight, bias, transB=1)

    def activated(self, x: str) -> str:
        """``x`` (rows, d_feed_forward) through the activation between two linear layers."""
        return self.op(self.network.activation, x)

    def embed(self, token_ids: str, table: str, factor: float = 1.0) -> str:
        """`nn.Embedding` times ``factor``: token ids (rows) to (rows, d_model)."""
        vectors = self.op("Gather", self.parameter(table), token_ids)
        return vectors if factor == 1 else self.op("Mul", vectors, self.scalar(factor))

    def vocabulary_scores(self, x: str, table: str, listed: str = "") -> str:
        """Products of ``x`` (rows, d_model) with all embeddings: fp32 (rows, vocab).

        Or with those of the token ids ``listed`` alone: (rows, listed).
        """
        embeddings = self.chosen(self.parameter(table), listed)
        return self.fp32(self.op("Gemm", x, embeddings, transB=1))

    def chosen(self, values: str, listed: str) -> str:
        """``values`` at the indices ``listed`` of their first dimension; all without a list."""
        return self.op("Gather", values, listed) if listed else values

    def top_k(self, x: str, k: str, width: int) -> tuple[str, str]:
        """The ``k`` largest of each row of ``x`` (rows, width), best first, and where they are.

        Both (rows, k). The row is cut into blocks first: the largest of all are in the blocks with
        the largest maxima, and to find those takes one quick pass.
        """
        size = _block_size(width)
        if size is None:
            best, indices = self.ops("TopK", x, k, num_results=2)
            return best, indices
        blocks = self.op("Reshape", x, self.integers(-1, width // size, size))
        maxima = self.op("ReduceMax", blocks, self.integers(-1), keepdims=0)  # (rows, blocks)
        num_blocks = self.op("Min", k, self.integers(width // size))
        _, chosen = self.ops("TopK", maxima, num_blocks, num_results=2)  # (rows, k)
        first = self.op("Mul", chosen, self.integer(size))
        indices = self.op(
            "Add", self.op("Unsqueeze", first, self.integers(2)), self.constant(np.arange(size))
        )  # (rows, k, size)
        indices = self.op("Flatten", indices)  # (rows, k size)
        values = self.op("GatherElements", x, indices, axis=1)
        best, among = self.ops("TopK", values, k, num_results=2)
        return best, self.op("GatherElements", indices, among, axis=1)

    def layer_norm(self, x: str, name: str) -> str:
        """`nn.LayerNorm` over each row, computed in fp32."""
        scale, bias = self.parameter(f"{name}.weight"), self.parameter(f"{name}.bias")
        epsilon = self.network.layer_norm_epsilon
        return self.op("LayerNormalization", x, scale, bias, epsilon=epsilon)

    def block(
        self, x: str, name: str, attend: Sublayer, attend_memory: Sublayer | None = None
    ) -> str:
        """`transformer.Block`: ``x`` (rows, d_model) one layer further.

        ``attend`` maps fused queries, keys and values (rows, 3 d_model) to weighted values
        (rows, d_model); ``attend_memory`` does so from queries (rows, d_model) alone.
        """

        def self_attention(y: str) -> str:
            weighted = attend(self.linear(y, f"{name}.self_attention.query_key_value"))
            return self.linear(weighted, f"{name}.self_attention.output")

        def cross_attention(y: str) -> str:
            assert attend_memory is not None
            weighted = attend_memory(self.linear(y, f"{name}.cross_attention.query"))
            return self.linear(weighted, f"{name}.cross_attention.output")

        def feed_forward(y: str) -> str:
            inner = self.activated(self.linear(y, f"{name}.feed_forward.0"))
            return self.linear(inner, f"{name}.feed_forward.2")

        x = self._residual(x, f"{name}.self_attention_residual", self_attention)
        if attend_memory is not None:
            x = self._residual(x, f"{name}.cross_attention_residual", cross_attention)
        return self._residual(x, f"{name}.feed_forward_residual", feed_forward)

    def _residual(self, x: str, name: str, sublayer: Sublayer) -> str:
        if self.network.norm_first:
            return self.op("Add", x, sublayer(self.layer_norm(x, f"{name}.norm")))
        return self.layer_norm(self.op("Add", x, sublayer(x)), f"{name}.norm")

    def attend_sequence(
        self, query_key_value: str, batch: str, lengths: str = "", causal: bool = False
    ) -> str:
        """Self-attention of whole texts: (rows, 3 d_model) to (rows, d_model).

        ``batch`` is the shape (batch, length) of the rows. With ``lengths`` (batch), positions
        behind a text's length are not attended to.
        """
        fused = self.by_text(query_key_value, batch)  # (batch, length, 3 d_model)
        query, keys, values = self.split(fused, 3, axis=2)
        heads = self.network.num_heads
        weighted = self.op(
            *("Attention", query, keys, values, "", "", "", lengths),
            q_num_heads=heads,
            kv_num_heads=heads,
            is_causal=int(causal),
        )  # (batch, length, d_model)
        return self.rows(weighted)

    def attend_memory(self, query: str, keys: str, values: str, lengths: str) -> str:
        """Cross-attention: ``query`` (rows, d_model) to weighted values (rows, d_model).

        ``keys`` and ``values`` are (batch, heads, source, head_dim), of which ``lengths`` (batch)
        source positions count. The rows of one text are adjacent and equally many for each text.
        """
        heads, head_dim = self.network.num_heads, self.network.head_dim
        batch = self.op("Shape", lengths)
        shape = self.op("Concat", batch, self.integers(-1, heads, head_dim), axis=0)
        split = self.op("Reshape", query, shape)  # (batch, rows per text, heads, head_dim)
        query = self.op("Transpose", split, perm=(0, 2, 1, 3))
        weighted = self.op("Attention", query, keys, values, "", "", "", lengths)
        return self.rows(self.op("Transpose", weighted, perm=(0, 2, 1, 3)))

    def attend_past(
        self,
        query_key_value: tuple[str, str, str],
        past: tuple[str, str],
        lengths: str,
        total_length: str,
    ) -> tuple[str, list[str]]:
        """Attention of one position a row to its past, to which its key and value are appended.

        Of ``past``, keys and values (rows, heads, max_length, head_dim), ``lengths`` (rows, int32)
        positions count; ``total_length`` (1, int32) is one more than the longest of them. Queries,
        keys and values are (rows, d_model), or the queries hold all three and the others are "".
        Gives weighted values (rows, d_model), and what is to be bound to the memory of ``past``.
        """
        one = self.integers(1)
        new = [x and self.op("Unsqueeze", x, one) for x in query_key_value]  # (rows, 1, d_model)
        weighted, *presents = self.ops(
            *("GroupQueryAttention", *new, *past, lengths, total_length),
            num_results=3,
            domain=MICROSOFT,
            num_heads=self.network.num_heads,
            kv_num_heads=self.network.num_heads,
        )
        return self.rows(weighted), presents

    def flat(self, token_ids: str) -> str:
        """``token_ids`` (batch, length) as (rows)."""
        return self.op("Reshape", token_ids, self.integers(-1))

    def rows(self, x: str) -> str:
        """``x``, whose last dimensions make up d_model, as (rows, d_model)."""
        return self.op("Reshape", x, self.integers(-1, self.network.d_model))

    def by_text(self, x: str, batch: str) -> str:
        """``x`` (rows, width) as (batch, length, width); ``batch`` is the shape (batch, length)."""
        return self.op("Reshape", x, self.op("Concat", batch, self.integers(-1), axis=0))

    def add_positions(self, x: str, batch: str, table: str) -> str:
        """``x`` (rows, d_model) plus the first vectors of ``table``; ``batch`` as in `by_text`."""
        length = self.op("Gather", batch, self.integers(1))
        first = self.integers(0)
        positions = self.op("Slice", self.parameter(table), first, length, first)
        return self.rows(self.op("Add", self.by_text(x, batch), positions))

    def is_real(self, batch: str, lengths: str) -> str:
        """Which of the tokens of texts with these ``lengths`` (batch) are no padding.

        ``batch`` is the shape (batch, length), and the shape of the booleans that are returned.
        """
        length = self.op("Gather", batch, self.integer(1))
        positions = self.op("Range", self.integer(0), length, self.integer(1))
        return self.op("Less", positions, self.op("Unsqueeze", lengths, self.integers(1)))


class Packing:
    """Texts of different lengths without their padding, so that no product is of padding.

    *Packed* are the rows of all real tokens, text by text; *padded* are as many rows as the longest
    text has, for each text.
    """

    def __init__(self, g: Layers, batch: str, lengths: str) -> None:
        """For texts of the shape ``batch`` (batch, length) and these ``lengths`` (batch)."""
        self._g, self._batch, self._lengths = g, batch, lengths
        is_real = g.flat(g.is_real(batch, lengths))  # (padded)
        self._indices = g.flat(g.op("NonZero", is_real))  # (packed)
        counts = g.op("CumSum", g.cast(is_real, np.int64), g.integer(0))  # (padded)
        # Padding in front of all else would be row -1: there is none, every text has a token.
        self._origins = g.op("Sub", counts, g.integer(1))

    def pack(self, x: str) -> str:
        """Rows of ``x`` (padded, ...) that are no padding: (packed, ...)."""
        return self._g.op("Gather", x, self._indices)

    def pad(self, x: str) -> str:
        """``x`` (packed, ...) as (padded, ...); padding repeats what is before it."""
        return self._g.op("Gather", x, self._origins)

    def add_positions(self, x: str, table: str) -> str:
        """``x`` (packed, d_model) plus the vector of ``table`` for each token's position."""
        length = self._g.op("Gather", self._batch, self._g.integer(1))
        positions = self._g.op("Mod", self._indices, length)  # (packed)
        return self._g.op("Add", x, self._g.op("Gather", self._g.parameter(table), positions))

    def attend(self, query_key_value: str) -> str:
        """Self-attention within each text: (packed, 3 d_model) to (packed, d_model)."""
        padded = self.pad(query_key_value)
        return self.pack(self._g.attend_sequence(padded, self._batch, self._lengths))


def _block_size(width: int) -> int | None:
    """The divisor of ``width`` nearest its square root, None if there is none worth the nodes."""
    root = math.isqrt(width)
    sizes = [size for size in range(root // 4 + 1, 4 * root) if width % size == 0]
    return min(sizes, key=lambda size: abs(size - root)) if root >= 32 and sizes else None
