"""int8 graphs: weights are quantized per column, activations per row at run time.

Each row has its own scale and the integer products are exact, so a row's result does not depend on
its neighbours in the batch. docs/decisions/0002-per-row-int8.md gives the reasons.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from attendant.v1.architecture_pb2 import ACTIVATION_RELU

from attendant_export.graphs.builder import (
    MICROSOFT,
    Array,
    LayoutError,
    Weights,
    describe_array,
)
from attendant_export.graphs.layers import Activation, Layers

ZERO_POINT = 128
"""The byte that represents 0 in activations that can be negative."""
MAX_PAIR = 128
"""Limit of the summed sizes of two neighbouring bytes in a column of a weight. Processors without
VNNI add the products of such a pair in 16 bits: 255 * 128 fits, 255 * (127 + 127) does not."""
SMALLEST_SCALE = 1e-12
"""Lower bound of a scale, which avoids division by zero for a column of zeros."""
SCALES = ".scales"
"""Suffix of the name of a weight's scales."""

QuantizedWeight: TypeAlias = tuple[Array, Array]
"""int8 values (outputs, inputs) and fp32 scales (outputs) of a weight."""


def quantize_columns(weight: Array) -> QuantizedWeight:
    """Quantize a weight (outputs, inputs), each output with the smallest possible step.

    Returns int8 values (outputs, inputs) and fp32 scales (outputs). The weight is approximately
    values * scales.
    """
    sizes = np.abs(weight)
    largest = sizes.max(axis=1)
    pairs = sizes[:, : sizes.shape[1] // 2 * 2].reshape(len(weight), -1, 2).sum(axis=2)
    # Rounding may add half a step to each byte of a pair.
    largest_pair = pairs.max(axis=1, initial=0)
    scales = np.maximum(np.maximum(largest / 127, largest_pair / (MAX_PAIR - 1)), SMALLEST_SCALE)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def restore_columns(
    arrays: Mapping[str, Array], tables: Collection[str]
) -> dict[str, QuantizedWeight]:
    """The quantized weights among the stored ``arrays`` of int8 graphs, by name.

    ``tables`` are the names of vocabulary tables, which graphs store as they are; other weights are
    stored transposed. Raises LayoutError that lists the weights of another layout.
    """
    names = [name for name in arrays if name + SCALES in arrays]
    found = {
        name: (arrays[name] if name in tables else arrays[name].T, arrays[name + SCALES])
        for name in names
    }
    problems = [
        f"{name} is {describe_array(arrays[name])} with scales {describe_array(scales)}"
        for name, (values, scales) in found.items()
        if values.dtype != np.int8 or values.ndim != 2 or scales.shape != values.shape[:1]
    ]
    if problems:
        raise LayoutError(
            "graphs of this version need int8 weights with a scale for each output, and "
            + "; ".join(problems)
        )
    return found


@dataclass(frozen=True, slots=True)
class _Rows:
    """Quantized activations: uint8 (rows, inputs), zero point or "", fp32 scales (rows, 1)."""

    values: str
    zero_point: str
    scales: str


class Int8Layers(Layers):
    """A graph whose products with weights are int8 products. All other operations are fp32."""

    def __init__(
        self,
        name: str,
        weights: Weights,
        parameters: Mapping[str, Array],
        stored: Mapping[str, QuantizedWeight] | None = None,
    ) -> None:
        """``stored`` are weights that are quantized already; other weights are quantized here."""
        super().__init__(name, weights, parameters, np.float32)
        self._stored = stored or {}
        self._quantized: dict[str, _Rows] = {}
        self._rectified: set[str] = set()
        self._zero_points = ""

    def linear(self, x: str, name: str) -> str:
        """`nn.Linear`, with or without a bias: (rows, inputs) to (rows, outputs)."""
        values, scales = self._weight(f"{name}.weight", np.transpose)
        product, bias = self._product(x, values, scales), f"{name}.bias"
        return self.op("Add", product, self.parameter(bias)) if bias in self.parameters else product

    def activation_between(self, x: str, kind: Activation) -> str:
        """Apply an activation to ``x`` (rows, width). Only linear layers use the result."""
        if kind != ACTIVATION_RELU:
            return super().activation_between(x, kind)
        self._rectified.add(x)  # Quantization to unsigned bytes drops negative values.
        return x

    def embed(self, token_ids: str, table: str, factor: float = 1.0) -> str:
        """`nn.Embedding` times ``factor``: token ids (rows) to (rows, d_model)."""
        values, scales = self._weight(table)
        scale = self.op("Mul", self.op("Gather", scales, token_ids), self.scalar(factor))
        return self.op("DequantizeLinear", self.op("Gather", values, token_ids), scale, axis=0)

    def vocabulary_products(self, x: str, table: str, listed: str = "") -> str:
        """Products of ``x`` (rows, d_model) with all rows of a table: fp32 (rows, vocab).

        With ``listed``, only products with the rows of these token ids: (rows, listed).
        """
        values, scales = (self.chosen(each, listed) for each in self._weight(table))
        rows = self._quantize_rows(x)
        # ONNX Runtime transposes constants at load time, so the file needs only one table.
        columns = self.op("Transpose", values)
        # The kernel copies the columns' scales one by one in every run. For a whole vocabulary and
        # few rows, a separate multiplication is faster.
        scaled_columns = self.op("Mul", self._sums(rows, columns, self.scalar(1)), scales)
        return self.op("Mul", scaled_columns, rows.scales)

    def _product(self, x: str, values: str, scales: str) -> str:
        """``x`` (rows, inputs) times a quantized weight (inputs, outputs) with ``scales``."""
        rows = self._quantize_rows(x)
        return self.op("Mul", self._sums(rows, values, scales), rows.scales)

    def _sums(self, rows: _Rows, values: str, scales: str) -> str:
        """Integer products of ``rows`` and ``values`` (inputs, outputs), times ``scales``."""
        return self.op(
            *("MatMulIntegerToFloat", rows.values, values, self.scalar(1), scales),
            rows.zero_point,
            domain=MICROSOFT,
        )

    def _weight(self, name: str, layout: Callable[[Array], Array] = np.asarray) -> tuple[str, str]:
        if self.has_weight(name):  # of a layer that runs several times
            return name, name + SCALES
        stored = self._stored.get(name)
        values, scales = stored or quantize_columns(self.parameters[name])
        return self.weight(name, layout(values)), self.weight(name + SCALES, scales)

    def _quantize_rows(self, x: str) -> _Rows:
        """Quantize each row of ``x`` by its largest value, once for all products that use it."""
        if x not in self._quantized:
            # Values that are never negative can use all 256 levels.
            self._quantized[x] = self._rectify(x) if x in self._rectified else self._quantize(x)
        return self._quantized[x]

    def _quantize(self, x: str) -> _Rows:
        # A row of zeros has scale 0, so its products are 0 for any bytes.
        scales = self.op("Mul", self._largest(self.op("Abs", x)), self.scalar(1 / 127))
        flat = self.op("Squeeze", scales, self.integers(1))
        if not self._zero_points:
            # All quantized values of a graph have the same number of rows.
            zero_point = self.constant(np.array(ZERO_POINT, np.uint8))
            self._zero_points = self.op("Expand", zero_point, self.op("Shape", flat))  # (rows)
        values = self.op("QuantizeLinear", x, flat, self._zero_points, axis=0)
        return _Rows(values, self.constant(np.array(ZERO_POINT, np.uint8)), scales)

    def _rectify(self, x: str) -> _Rows:
        """Quantize the rows of ``x`` with negative values replaced by 0."""
        largest = self.op("Max", self._largest(x), self.scalar(0))
        scales = self.op("Mul", largest, self.scalar(1 / 255))
        flat = self.op("Squeeze", scales, self.integers(1))
        return _Rows(self.op("QuantizeLinear", x, flat, axis=0), "", scales)

    def _largest(self, x: str) -> str:
        """The largest value of each row of ``x``: (rows, 1)."""
        return self.op("ReduceMax", x, self.integers(-1))
