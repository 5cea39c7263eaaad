"""The shape of the caches of a model."""

from dataclasses import dataclass

import numpy as np

SMALLEST_NUM_POSITIONS = 16
"""Positions of the smallest buffer that grows with what it holds; each next size is twice as long.
A kernel's work may follow the length of the buffer."""


@dataclass(frozen=True, slots=True)
class CacheSizes:
    """The shape of all caches of one model. Limits are inclusive."""

    num_tensors: int
    """Tensors of each row, and of each source: keys and values of every layer."""
    num_heads: int
    head_dim: int
    max_source_tokens: int
    max_target_positions: int
    dtype: np.dtype[np.generic]

    def most_bytes(self, width: int, max_slots: int) -> int:
        """Memory of caches for so many sentences of ``width`` rows, each as long as it may be."""
        positions = max_slots * (width * self.max_target_positions + self.max_source_tokens)
        position_bytes = self.num_heads * self.head_dim * self.dtype.itemsize
        return self.num_tensors * positions * position_bytes


def doubled(smallest: int, wanted: int, most: int) -> int:
    """The first of ``smallest``, twice that, and so on, that is enough; no more than ``most``."""
    size = smallest
    while size < wanted:
        size *= 2
    return min(size, most)
