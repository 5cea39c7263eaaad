"""The shapes of the caches of a model, and the memory that sentences need in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from attendant.v1 import bundle_pb2, embedding_pb2

from attendant_server.runtime.signatures import StepSignature

POSITION_STEP = 16
"""Needs are rounded up to multiples of this number of positions."""


@dataclass(frozen=True)
class StateLayout:
    """The shape of all states of one kind: each entry has the same positions in each tensor."""

    num_tensors: int
    """0 if the model has no states of this kind."""
    num_heads: int
    head_dim: int
    dtype: np.dtype[np.generic]
    max_positions: int
    """Limit of the positions of an entry. A state without positions has one."""

    @cached_property
    def position_bytes(self) -> int:
        """Bytes of one position in all tensors."""
        return self.num_tensors * self.num_heads * self.head_dim * self.dtype.itemsize


@dataclass(frozen=True)
class CacheSizes:
    """The shapes of all caches of one model."""

    growing: StateLayout
    """States of rows that grow: keys and values of self-attention in every layer."""
    replaced: StateLayout
    """States of rows that each run replaces, each with two copies."""
    sources: StateLayout
    """States of sources: keys and values of cross-attention in every layer. None in a language
    model, and in a translation model without attention."""

    def needed_bytes(
        self, width: int, num_sentences: int, longest_row: int, longest_source: int
    ) -> int:
        """Memory for ``num_sentences`` of ``width`` rows, all as long as the longest."""
        row = in_steps(longest_row, self.growing.max_positions)
        source = in_steps(longest_source, self.sources.max_positions)
        row_bytes = row * self.growing.position_bytes + self.replaced.position_bytes
        return num_sentences * (width * row_bytes + source * self.sources.position_bytes)


def cache_sizes(signature: StepSignature, limits: bundle_pb2.Limits) -> CacheSizes:
    """Sizes of the caches; raises ValueError for states that no cache can hold."""
    longest_row = (limits.max_target_tokens or limits.max_tokens) + signature.num_extra_positions
    growing, replaced = signature.growing_states, signature.replaced_states
    if not growing and not replaced:
        raise ValueError("rows have no states")
    encoded, started = signature.encoded_states, signature.started_states
    if any(not state.encoder_output for state in encoded) or not (encoded or started):
        raise ValueError("the encoder initializes neither states of sources nor of rows")
    return CacheSizes(
        _layout("growing states of rows", growing, longest_row),
        _layout("replaced states of rows", [*replaced, *replaced], 1),
        _layout("states of sources", signature.source_states, limits.max_source_tokens),
    )


def _layout(kind: str, states: Sequence[bundle_pb2.StateTensor], max_positions: int) -> StateLayout:
    """The layout of ``states``. A vector has one head and one position."""
    if not states:
        return StateLayout(0, 1, 1, np.dtype(np.float32), max_positions)
    if len({(state.data_type, tuple(state.shape)) for state in states}) > 1:
        raise ValueError(f"{kind} must have equal types and shapes")
    num_heads, width = (states[0].shape[0] if len(states[0].shape) > 1 else 1), states[0].shape[-1]
    is_half = states[0].data_type == embedding_pb2.DATA_TYPE_FLOAT16
    dtype = np.dtype(np.float16 if is_half else np.float32)
    return StateLayout(len(states), num_heads, width, dtype, max_positions)


def num_steps(num_positions: int) -> int:
    """The number of steps of `POSITION_STEP` positions that ``num_positions`` need."""
    return -(-num_positions // POSITION_STEP)


def in_steps(num_positions: int, most: int) -> int:
    """``num_positions`` rounded up to `POSITION_STEP`, but no more than ``most``."""
    return min(num_steps(num_positions) * POSITION_STEP, most)
