"""Number formats of vectors in answers."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_FLOAT16 = float(np.finfo(np.float16).max)
MAX_INT8 = 127
UINT8_ZERO = 128
"""The number of the value 0."""


class DataType(IntEnum):
    """Number formats; numbered as in the contract."""

    FLOAT32 = 1
    FLOAT16 = 2
    INT8 = 3
    UINT8 = 4
    BINARY = 5

    def row_bytes(self, dimension: int) -> int:
        """Size of a vector with this number of values, without its scale."""
        if self is DataType.BINARY:
            return (dimension + 7) // 8
        return dimension * {DataType.FLOAT32: 4, DataType.FLOAT16: 2}.get(self, 1)


@dataclass(frozen=True, slots=True)
class ConvertedVectors:
    """Vectors in a number format."""

    numbers: NDArray[Any]  # (..., d), of bits (..., bytes), little-endian
    data_type: DataType
    shape: tuple[int, ...]
    """The shape of the values."""
    scales: NDArray[np.float32] | None = None  # (...)
    """A value is about the number, without the zero of the format, times the scale of its row."""


def converted(vectors: NDArray[np.float32], data_type: DataType) -> ConvertedVectors:
    """Vectors (..., d) in a number format; `DataType` in the contract has the formulas."""
    shape = vectors.shape
    if data_type is DataType.FLOAT32:
        return ConvertedVectors(vectors.astype("<f4", copy=False), data_type, shape)
    if data_type is DataType.FLOAT16:
        within = np.clip(vectors, -MAX_FLOAT16, MAX_FLOAT16)
        return ConvertedVectors(within.astype("<f2"), data_type, shape)
    if data_type is DataType.BINARY:
        return ConvertedVectors(np.packbits(vectors > 0, axis=-1), data_type, shape)
    largest = np.abs(vectors).max(axis=-1, keepdims=True, initial=0)
    scales = (largest / MAX_INT8).astype(np.float32)  # (..., 1)
    # A scale can underflow to 0 beside values that are not 0.
    steps = np.divide(vectors, scales, out=np.zeros_like(vectors), where=scales > 0)
    numbers = np.clip(np.rint(steps), -MAX_INT8, MAX_INT8).astype(np.int16)
    if data_type is DataType.UINT8:
        numbers = (numbers + UINT8_ZERO).astype(np.uint8)
    else:
        numbers = numbers.astype(np.int8)
    return ConvertedVectors(numbers, data_type, shape, scales[..., 0])
