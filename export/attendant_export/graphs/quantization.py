"""int8 graphs: weights are quantized per column, activations at run time.

Each row of activations has its own scale, or all rows of a layer have a fixed one. The integer
products are exact. So a row's result does not depend on its neighbours in the batch.
docs/decisions/0002-per-row-int8.md and 0036-fixed-input-scales.md give the reasons.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Self, TypeAlias

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
BLOCK_ROWS = 1024
"""Number of outputs of a weight that are quantized at a time, to bound temporary arrays."""
SCALES = ".scales"
"""Suffix of the name of a weight's scales."""
SMOOTHING = ".smoothing"
"""Suffix of the name of a linear layer's factors of its inputs; see `smoothing`."""
INPUT_SCALE = ".input_scale"
"""Suffix of the name of a fixed scale of inputs, after the name of a linear layer or a table of
embeddings. Inputs beyond 127 times the scale are cut off."""

QuantizedWeight: TypeAlias = tuple[Array, Array]
"""int8 values (outputs, inputs) and fp32 scales (outputs) of a weight."""


def quantize_columns(weight: Array) -> QuantizedWeight:
    """Quantize a weight (outputs, inputs), each output with the smallest possible step.

    Returns int8 values (outputs, inputs) and fp32 scales (outputs). The weight is approximately
    values * scales.
    """
    values = np.empty(weight.shape, np.int8)
    scales = np.empty(len(weight), np.float32)
    # In blocks, because the table of a vocabulary is most of a model.
    for first in range(0, len(weight), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        values[block], scales[block] = _quantize_block(weight[block])
    return values, scales


def _quantize_block(weight: Array) -> QuantizedWeight:
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
    """Quantized activations: uint8 (rows, inputs), zero point or "", and fp32 scales: (rows, 1), or
    a scalar for all rows."""

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
        self._zero_points, self._may_be_none = "", False

    def body(self, name: str) -> Self:
        """A builder of the body of a loop of this graph, which has other rows."""
        body = super().body(name)
        body._quantized, body._zero_points = {}, ""
        return body

    def change_rows(self, may_be_none: bool = False) -> None:
        """Declare that later products have other numbers of rows, such as those of another text.

        With ``may_be_none``, they may have no rows at all.
        """
        self._zero_points, self._may_be_none = "", may_be_none

    def linear(self, x: str, name: str) -> str:
        """`nn.Linear`, with or without a bias: (rows, inputs) to (rows, outputs)."""
        values, scales = self._weight(f"{name}.weight", np.transpose, name + SMOOTHING)
        x, bias = self._smooth(x, name), f"{name}.bias"
        if name + INPUT_SCALE in self.parameters:
            added = self.parameter(bias) if bias in self.parameters else ""
            return self._fixed_product(x, name + INPUT_SCALE, values, scales, added)
        product = self._product(x, values, scales)
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

    def vocabulary_products(self, x: str, table: str, bias: str = "") -> str:
        """Products of ``x`` (rows, d_model) with all rows of a table: fp32 (rows, vocab).

        ``bias`` names a parameter (vocab) to add.
        """
        values, scales = self._weight(table)
        # ONNX Runtime transposes constants at load time, so the file needs only one table.
        columns = self.op("Transpose", values)
        fixed = table.removesuffix(".weight") + INPUT_SCALE
        if fixed in self.parameters:
            added = self.fp32_parameter(bias) if bias else ""
            return self._fixed_product(x, fixed, columns, scales, added)
        rows = self._quantize_rows(x)
        # The kernel copies the columns' scales one by one in every run. For a whole vocabulary and
        # few rows, a separate multiplication is faster.
        scaled_columns = self.op("Mul", self._sums(rows, columns, self.scalar(1)), scales)
        products = self.op("Mul", scaled_columns, rows.scales)
        return self.op("Add", products, self.fp32_parameter(bias)) if bias else products

    def listed_products(self, x: str, table: str, listed: str) -> str:
        """Products of ``x`` (rows, d_model) with some rows of a table: fp32 (rows, listed).

        ``listed`` holds the numbers of these rows.
        """
        values, scales = self._weight(table)
        # ONNX Runtime merges equal operations, so all tokens of a run share the listed columns.
        columns = self.op("Transpose", self.op("Gather", values, listed))
        listed_scales = self.op("Gather", scales, listed)
        fixed = table.removesuffix(".weight") + INPUT_SCALE
        if fixed in self.parameters:
            return self._fixed_product(x, fixed, columns, listed_scales, "")
        return self._product(x, columns, listed_scales)

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

    def _fixed_product(self, x: str, fixed: str, values: str, scales: str, bias: str) -> str:
        """``x`` (rows, inputs), quantized with a fixed scale, times a weight, plus a bias or "".

        ``fixed`` names the scale's parameter.
        """
        rows = self._quantize_fixed(x, fixed)
        return self.op(
            *("MatMulIntegerToFloat", rows.values, values, rows.scales, scales),
            *(rows.zero_point, "", bias),
            domain=MICROSOFT,
        )

    def _quantize_fixed(self, x: str, fixed: str) -> _Rows:
        scale = self.parameter(fixed)
        if x in self._rectified:
            # Values that are never negative can use all 256 levels of the same range.
            scale = self.op("Mul", scale, self.scalar(127 / 255))
            return _Rows(self.op("QuantizeLinear", x, scale), "", scale)
        zero_point = self.constant(np.array(ZERO_POINT, np.uint8))
        return _Rows(self.op("QuantizeLinear", x, scale, zero_point), zero_point, scale)

    def _smooth(self, x: str, name: str) -> str:
        """``x`` (rows, inputs) times the factors of the layer ``name``, if it has any."""
        factors = name + SMOOTHING
        if factors not in self.parameters:
            return x
        smooth = self.op("Mul", x, self.parameter(factors))
        if x in self._rectified:
            self._rectified.add(smooth)
        return smooth

    def _weight(
        self, name: str, layout: Callable[[Array], Array] = np.asarray, smoothing: str = ""
    ) -> tuple[str, str]:
        @cache
        def quantized() -> QuantizedWeight:
            if name in self._stored:
                return self._stored[name]
            weight = self.parameters[name]
            factors = self.parameters.get(smoothing)
            return quantize_columns(weight if factors is None else weight / factors)

        values = self.weight(name, lambda: layout(quantized()[0]))
        return values, self.weight(name + SCALES, lambda: quantized()[1])

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
            # Until `change_rows`, all quantized values have the same number of rows.
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
        largest = self.op("ReduceMax", x, self.integers(-1))
        if not self._may_be_none:
            return largest
        # ONNX Runtime keeps all columns if there are no rows.
        return self.op("Slice", largest, self.integers(0), self.integers(1), self.integers(1))
