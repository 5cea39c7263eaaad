"""int8: weights quantized per column, activations per row, inside the graph.

Each row has a scale of its own, so no neighbour in the batch enters a row's arithmetic, and the
integer products are exact. docs/decisions/0002-per-row-int8.md tells why it is done like this.
"""

from dataclasses import dataclass

import numpy as np

from attendant_export.graph_builder import MICROSOFT, Array, WeightFile
from attendant_export.graph_layers import Layers, Network

ZERO_POINT = 128
"""The byte that stands for 0 in weights, and in activations that can be negative."""
SMALLEST_SCALE = 1e-12
"""Keeps a row of zeros from being divided by zero."""


def quantize_columns(weight: Array) -> tuple[Array, Array]:
    """Quantize a weight (outputs, inputs) by the largest value of each output.

    Returns uint8 (inputs, outputs) around 128 and fp32 scales (outputs), so that
    weight.T is about (values - 128) * scales.
    """
    scales = np.maximum(np.abs(weight).max(axis=1) / 127, SMALLEST_SCALE).astype(np.float32)
    values = np.rint(weight / scales[:, None]) + ZERO_POINT
    return values.astype(np.uint8).T, scales


@dataclass(frozen=True, slots=True)
class _Rows:
    """Quantized activations: uint8 (rows, inputs), scalar zero point, fp32 scales (rows, 1)."""

    values: str
    zero_point: str
    scales: str


class Int8Layers(Layers):
    """A graph whose products with weights are of bytes; all else is fp32."""

    def __init__(self, name: str, weights: WeightFile, network: Network) -> None:
        super().__init__(name, weights, network, np.float32)
        self._quantized: dict[str, _Rows] = {}

    def linear(self, x: str, name: str) -> str:
        """`nn.Linear`: (rows, inputs) to (rows, outputs)."""
        return self.op("Add", self._product(x, f"{name}.weight"), self.parameter(f"{name}.bias"))

    def embed(self, token_ids: str, table: str) -> str:
        """`nn.Embedding`: token ids (rows) to (rows, d_model)."""
        values, scales = self._weight(table)
        columns = self.op("Gather", values, token_ids, axis=1)  # (d_model, rows)
        unsigned = self.cast(self.op("Transpose", columns), np.float32)  # (rows, d_model)
        signed = self.op("Sub", unsigned, self.scalar(ZERO_POINT))
        scales = self.op("Unsqueeze", self.op("Gather", scales, token_ids), self.integers(1))
        return self.op("Mul", signed, scales)

    def vocabulary_scores(self, x: str, table: str) -> str:
        """Products of ``x`` (rows, d_model) with all embeddings: fp32 (rows, vocab)."""
        return self._product(x, table)

    def _product(self, x: str, weight: str) -> str:
        """``x`` (rows, inputs) times the transposed parameter ``weight`` (outputs, inputs)."""
        rows = self._quantize_rows(x)
        values, scales = self._weight(weight)
        scaled_columns = self.op(
            *("MatMulIntegerToFloat", rows.values, values, self.scalar(1), scales),
            *(rows.zero_point, self._byte(ZERO_POINT)),
            domain=MICROSOFT,
        )
        return self.op("Mul", scaled_columns, rows.scales)

    def _weight(self, name: str) -> tuple[str, str]:
        values, scales = quantize_columns(self.network.parameters[name])
        return self.weight(name, values), self.weight(f"{name}.scales", scales)

    def _quantize_rows(self, x: str) -> _Rows:
        """Quantize each row of ``x`` by its largest value, once for all products that use it."""
        if x not in self._quantized:
            # What is never negative can use all 256 levels.
            if self.op_type(x) == "Relu":
                self._quantized[x] = self._quantize(x, largest=x, num_levels=255, zero_point=0)
            else:
                self._quantized[x] = self._quantize(x, self.op("Abs", x), 127, ZERO_POINT)
        return self._quantized[x]

    def _quantize(self, x: str, largest: str, num_levels: int, zero_point: int) -> _Rows:
        maximum = self.op("ReduceMax", largest, self.integers(-1))  # (rows, 1)
        scales = self.op("Mul", maximum, self.scalar(1 / num_levels))
        scales = self.op("Max", scales, self.scalar(SMALLEST_SCALE))
        flat = self.op("Squeeze", scales, self.integers(1))
        zero_points = self.op("Expand", self._byte(zero_point), self.op("Shape", flat))  # (rows)
        values = self.op("QuantizeLinear", x, flat, zero_points, axis=0)
        return _Rows(values, self._byte(zero_point), scales)

    def _byte(self, value: int) -> str:
        return self.constant(np.array(value, np.uint8))
