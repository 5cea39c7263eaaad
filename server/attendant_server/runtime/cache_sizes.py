"""The shape of the caches of a model, and the memory that sentences need in them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from attendant.v1 import bundle_pb2, embedding_pb2

from attendant_server.runtime.signatures import StepSignature

POSITION_STEP = 16
"""Needs are rounded up to multiples of this number of positions."""


@dataclass(frozen=True)
class CacheSizes:
    """The shape of all caches of one model. Limits are inclusive."""

    num_tensors: int
    """Tensors of each row, and of each source: keys and values of every layer."""
    num_heads: int
    head_dim: int
    max_source_tokens: int
    max_target_positions: int
    dtype: np.dtype[np.generic]

    @cached_property
    def position_bytes(self) -> int:
        """Bytes of one position in all tensors."""
        return self.num_tensors * self.num_heads * self.head_dim * self.dtype.itemsize

    def needed_bytes(
        self, width: int, num_sentences: int, longest_row: int, longest_source: int
    ) -> int:
        """Memory for ``num_sentences`` of ``width`` rows, all as long as the longest."""
        row = in_steps(longest_row, self.max_target_positions)
        source = in_steps(longest_source, self.max_source_tokens)
        return num_sentences * (width * row + source) * self.position_bytes


def cache_sizes(signature: StepSignature, limits: bundle_pb2.Limits) -> CacheSizes:
    """Sizes of the caches; raises ValueError for states of several shapes."""
    rows, sources = signature.row_states, signature.source_states
    shapes = {(state.data_type, tuple(state.shape)) for state in (*rows, *sources)}
    if len(shapes) != 1 or len(rows) != len(sources):
        raise ValueError("states of rows and of sources must have equal counts, types and shapes")
    (data_type, (heads, _, width)) = shapes.pop()
    return CacheSizes(
        len(rows),
        heads,
        width,
        limits.max_source_tokens,
        limits.max_target_tokens + signature.num_extra_positions,
        np.dtype(np.float16 if data_type == embedding_pb2.DATA_TYPE_FLOAT16 else np.float32),
    )


def num_steps(num_positions: int) -> int:
    """The number of steps of `POSITION_STEP` positions that ``num_positions`` need."""
    return -(-num_positions // POSITION_STEP)


def in_steps(num_positions: int, most: int) -> int:
    """``num_positions`` rounded up to `POSITION_STEP`, but no more than ``most``."""
    return min(num_steps(num_positions) * POSITION_STEP, most)
