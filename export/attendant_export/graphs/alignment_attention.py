"""Attention by an alignment function as graph nodes. See `models.alignment_attention`.

`stack` adds the output layer after it. Scores and weights are fp32 in every precision.
"""

from collections.abc import Callable

import numpy as np
from attendant.v1.architecture_pb2 import (
    ALIGNMENT_FUNCTION_ADDITIVE,
    ALIGNMENT_FUNCTION_SCALED_DOT,
    AlignmentAttention,
)

from attendant_export.graphs.layers import Layers
from attendant_export.models.alignment_attention import WITH_QUERY


class AlignedSources:
    """The weights by which rows of a decoder add up the outputs of the encoder."""

    def __init__(
        self, g: Layers, lengths: str, positions: Callable[[], str], has_whole_targets: bool
    ) -> None:
        """``lengths`` (batch) are the numbers of tokens of sources.

        ``positions`` adds the nodes for the positions (1 or batch, rows per text) of the rows in
        their targets, int64. The rows of one text are adjacent, and all texts have the same number
        of rows.
        """
        self._g, self._lengths, self._positions = g, lengths, positions
        self._has_whole_targets = has_whole_targets

    def weights(self, part: AlignmentAttention, name: str, x: str, keys: str) -> str:
        """Weights (batch, rows per text, source) of states ``x`` (rows, d_model), fp32.

        ``name`` is that of the part in the model; ``keys`` are (batch, 1, source, d_model).
        """
        g = self._g
        scores = self._scores(part, name, x, keys)
        places = self._source_positions(keys)  # (source)
        lengths = g.op("Unsqueeze", self._lengths, g.integers(1, 2))
        is_seen = g.op("Less", places, lengths)  # (batch, 1, source)
        if not part.HasField("window"):
            return self._softmax(scores, is_seen)
        distances = g.op("Sub", g.cast(places, np.float32), self._middle(part, name, x))
        half = g.constant(np.array(part.window.half_width, np.float32))
        is_seen = g.op("And", is_seen, g.op("LessOrEqual", g.op("Abs", distances), half))
        weights = self._softmax(scores, is_seen)
        if not part.window.is_predictive:
            return weights
        factor = g.constant(np.array(-2 / part.window.half_width**2, np.float32))
        exponent = g.op("Mul", g.op("Mul", distances, distances), factor)
        return g.op("Mul", weights, g.op("Exp", exponent))

    def attend(self, part: AlignmentAttention, name: str, x: str, keys: str, values: str) -> str:
        """Weighted values (rows, d_model); ``values`` are (batch, 1, source, d_model)."""
        g = self._g
        weights = g.rounded(self.weights(part, name, x, keys))
        values = g.op("Squeeze", values, g.integers(1))
        return g.rows(g.op("MatMul", weights, values), _width(g, name))

    def _softmax(self, scores: str, is_seen: str) -> str:
        g = self._g
        masked = g.op("Where", is_seen, scores, g.constant(np.array(-np.inf, np.float32)))
        return g.op("Softmax", masked, axis=-1)

    def _by_text(self, x: str, width: int) -> str:
        """``x`` (rows, width) as (batch, rows per text, width)."""
        g = self._g
        shape = g.op("Concat", g.op("Shape", self._lengths), g.integers(-1, width), axis=0)
        return g.op("Reshape", x, shape)

    def _source_positions(self, keys: str) -> str:
        """The positions (source), from 0."""
        g = self._g
        count = g.op("Squeeze", g.op("Shape", keys, start=2, end=3))
        return g.op("Range", g.integer(0), count, g.integer(1))

    def _scores(self, part: AlignmentAttention, name: str, x: str, keys: str) -> str:
        """Scores (batch, rows per text, source), fp32."""
        g, width = self._g, _width(self._g, name)
        query = g.linear(x, f"{name}.query") if part.function in WITH_QUERY else x
        query = self._by_text(query, width)
        if part.function == ALIGNMENT_FUNCTION_ADDITIVE:
            add = self._additive_by_position if self._has_whole_targets else self._additive
            return add(name, query, keys)
        columns = g.op("Transpose", g.op("Squeeze", keys, g.integers(1)), perm=(0, 2, 1))
        products = g.fp32(g.op("MatMul", query, columns))
        if part.function != ALIGNMENT_FUNCTION_SCALED_DOT:
            return products
        return g.op("Mul", products, g.constant(np.array(width**-0.5, np.float32)))

    def _additive(self, name: str, query: str, keys: str) -> str:
        """Additive scores of a few rows of each text."""
        g = self._g
        both = g.op("Add", g.op("Unsqueeze", query, g.integers(2)), keys)
        return _vector_product(g, f"{name}.score", g.op("Tanh", both))

    def _additive_by_position(self, name: str, query: str, keys: str) -> str:
        """Additive scores of whole targets, in a loop over the positions of the source.

        Otherwise they would need memory for d_model values for each pair of positions.
        """
        g, width = self._g, _width(self._g, name)
        body = g.body(f"{name}.position")
        key = body.input(f"{name}.key_of_position", g.dtype, "batch", 1, width)
        both = body.op("Tanh", body.op("Add", query, key))
        scores = _vector_product(body, f"{name}.score", both)
        body.output(f"{name}.scores", scores, np.float32, "batch", "target")
        found = g.each_result(body, g.op("Transpose", keys, perm=(2, 0, 1, 3)))
        return g.op("Transpose", found, perm=(1, 2, 0))

    def _middle(self, part: AlignmentAttention, name: str, x: str) -> str:
        """The middle of each row's window: (1 or batch, rows per text, 1)."""
        g = self._g
        lengths = g.op("Unsqueeze", self._lengths, g.integers(1))
        if part.window.is_predictive:
            hidden = g.op("Tanh", g.linear(x, f"{name}.position"))
            score = _vector_product(
                g, f"{name}.position_score", self._by_text(hidden, _width(g, name))
            )
            middle = g.op("Mul", g.cast(lengths, np.float32), g.op("Sigmoid", score))
        else:
            last = g.op("Sub", lengths, g.integer(1))
            middle = g.cast(g.op("Min", self._positions(), last), np.float32)
        return g.op("Unsqueeze", middle, g.integers(2))


def normalized(g: Layers, part: AlignmentAttention, weights: str) -> str:
    """``weights`` scaled to a sum of 1, which those of predictive windows do not have."""
    if not part.window.is_predictive:
        return weights
    return g.op("Div", weights, g.op("ReduceSum", weights, g.integers(-1), keepdims=1))


def _vector_product(g: Layers, name: str, x: str) -> str:
    """The products (...) of ``x`` (..., width) with the only row of a weight, fp32."""
    weight = g.parameter(f"{name}.weight")
    shape = g.op("Shape", x, end=-1)
    rows = g.op("Reshape", x, g.integers(-1, int(g.parameters[f"{name}.weight"].shape[1])))
    return g.fp32(g.op("Reshape", g.op("Gemm", rows, weight, transB=1), shape))


def _width(g: Layers, name: str) -> int:
    return int(g.parameters[f"{name}.output.weight"].shape[0])
