"""Many short arrays as two long ones. Works on NumPy arrays only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sequences:
    """Arrays of different lengths, stored one behind the other."""

    values: NDArray[Any]  # (total)
    offsets: NDArray[Any]  # (sequences + 1), the first is 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.values[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def lengths(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """The lengths of the sequences ``rows``."""
        lengths: NDArray[np.int64] = (self.offsets[rows + 1] - self.offsets[rows]).astype(np.int64)
        return lengths

    def padded(self, rows: NDArray[Any], width: int, fill: int) -> NDArray[np.int64]:
        """The sequences ``rows``, right-padded with ``fill`` to (rows, width).

        No sequence may be longer than ``width``.
        """
        padded = np.full((len(rows), width), fill, np.int64)
        columns = np.arange(width)
        is_real = columns < self.lengths(rows)[:, None]
        places = self.offsets[rows].astype(np.int64)[:, None] + columns
        padded[is_real] = self.values[places[is_real]]
        return padded


def join_sequences(arrays: Sequence[Sequence[int] | NDArray[Any]], dtype: Any) -> Sequences:
    """The arrays as `Sequences` of ``dtype`` in memory."""
    offsets = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    values = np.empty(offsets[-1], dtype)
    for start, array in zip(offsets.tolist(), arrays, strict=False):
        values[start : start + len(array)] = array
    return Sequences(values, offsets)
