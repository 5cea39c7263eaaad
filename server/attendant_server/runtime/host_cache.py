"""The caches of the decoder on the host.

Knows graphs and arrays, and nothing of requests, search or scheduling.
"""

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from attendant_server.engine.models import CacheCopy, Candidates, StepInput
from attendant_server.runtime.cache_pool import NO_LIMIT, CacheBuffer, CachePool, WidthBuffers
from attendant_server.runtime.cache_sizes import CacheSizes
from attendant_server.runtime.sessions import Tensor
from attendant_server.runtime.shortlists import Shortlists
from attendant_server.runtime.step import BoundStep, StepInputBuffers, StepRunner

MAX_BINDINGS = 256
"""Bound steps that one memory keeps, a few kilobytes each; beyond, it begins anew."""


@dataclass(frozen=True, slots=True)
class EncodedSentence:
    """Cross-attention keys and values of one source, for every decoder layer in turn."""

    keys_values: list[NDArray[np.generic]]  # each (heads, source, head_dim)
    num_tokens: int
    shortlist: NDArray[np.integer] | None = None
    """Token ids, not all different, that the translation may use; None for any."""


class HostBuffer(CacheBuffer):
    """One buffer in memory of the host."""

    _memory: NDArray[np.generic]  # (tensors, capacity * heads * head_dim)
    tensors: NDArray[np.generic]
    """(tensors, entries, heads, positions, head_dim); the first entries of each are contiguous."""
    has_zeros_behind = False
    """Whether what is behind the content of an entry must be zero."""

    def lay_out(self, capacity: int, num_positions: int, num_entries: int, num_kept: int) -> None:
        """Copy, tensor by tensor, what is kept."""
        sizes, before = self.sizes, self.tensors if self.capacity else None
        num_tensors, size = sizes.num_tensors, sizes.num_heads * sizes.head_dim
        if before is None or capacity != self.capacity:
            self._has_moved()
            self._memory = new_memory((num_tensors, capacity * size), sizes.dtype)
        fitting = capacity // num_positions if capacity else 0
        self.tensors = self._memory[:, : fitting * num_positions * size].reshape(
            num_tensors, fitting, sizes.num_heads, num_positions, sizes.head_dim
        )
        if before is None or not num_entries:
            return
        for old, new in zip(before, self.tensors, strict=True):
            kept = old[:num_entries, :, :num_kept]
            # Both layouts may share the memory of a tensor.
            new[:num_entries, :, :num_kept] = kept.copy() if capacity == self.capacity else kept
            if self.has_zeros_behind:
                new[:num_entries, :, num_kept:] = 0


def new_memory(shape: tuple[int, int], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """Zeros that go back to the system at once when nothing refers to them any more.

    What malloc gives back may stay with the process: it keeps what is smaller than the largest
    piece that was ever given back.
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    if not num_bytes:
        return np.zeros(shape, dtype)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype).reshape(shape)


class HostDecoderCache:
    """The caches of sentences searched with one width, and the steps over them.

    Self-attention caches are (rows, heads, positions, head_dim); a step is bound to the first rows
    and writes new keys and values in place. Cross-attention buffers are (slots, heads, source,
    head_dim). The operators read no further than each row and each source, so that these buffers
    may be longer; but ``decoder_step`` computes with whole buffers of sources, which therefore are
    only as long as the longest source.
    """

    def __init__(
        self,
        graph: StepRunner,
        sizes: CacheSizes,
        width: int,
        max_slots: int,
        vocab_size: int,
        pool: CachePool | None = None,
    ) -> None:
        """For at most ``max_slots`` sentences of ``width`` rows; takes no memory yet.

        ``graph`` is ``decoder_step`` or, for a width of 1, one of the greedy ones. Without a
        ``pool`` the cache has one of its own, without a limit.
        """
        self._graph, self._sizes, self._signature = graph, sizes, graph.signature
        self._width, self._max_slots = width, max_slots
        self.num_step_tokens = self._signature.num_tokens
        self._bindings: dict[tuple[int, ...], BoundStep] = {}
        pool = pool or CachePool(sizes)
        reads_padding = self._signature.reads_source_padding
        self._past = HostBuffer(
            pool, max_slots * width, sizes.max_target_positions, NO_LIMIT, self._bindings.clear
        )
        self._cross = HostBuffer(
            pool,
            max_slots,
            sizes.max_source_tokens,
            1 if reads_padding else NO_LIMIT,
            self._bindings.clear,
        )
        self._cross.has_zeros_behind = reads_padding
        self._buffers = WidthBuffers(pool, width, self._past, self._cross)
        self._inputs = StepInputBuffers(max_slots * width, max_slots)
        self._source_lengths = self._inputs.source_lengths
        takes_shortlist = self._signature.takes_shortlist
        self._shortlists = Shortlists(max_slots, width, vocab_size) if takes_shortlist else None

    @property
    def num_bytes(self) -> int:
        """Memory of all caches at this moment."""
        return self._buffers.num_bytes

    def release(self) -> None:
        """No slot is in use any more."""
        self._buffers.release()

    def load(self, slot: int, source: EncodedSentence) -> None:
        """Put an encoded source into a slot."""
        self._source_lengths[slot] = source.num_tokens
        if self._shortlists is not None:
            assert source.shortlist is not None
            self._shortlists.load(slot, source.shortlist)
        self._buffers.fit_source(slot, int(self._source_lengths[: slot + 1].max()))
        for cross, keys_values in zip(self._cross.tensors, source.keys_values, strict=True):
            cross[slot, :, : source.num_tokens] = keys_values
            if self._signature.reads_source_padding:
                # Masked positions still enter products, with a weight of zero, and zero times
                # what a broken source left there would be NaN for its successor.
                cross[slot, :, source.num_tokens :] = 0

    def move(self, origin: int, slot: int, num_positions: int) -> None:
        """Move a slot whose rows hold ``num_positions`` tokens."""
        target, source = self._rows(slot), self._rows(origin)
        past = self._past.tensors
        past[:, target, :, :num_positions] = past[:, source, :, :num_positions]
        self._source_lengths[slot] = self._source_lengths[origin]
        if self._shortlists is not None:
            self._shortlists.move(origin, slot)
        length = self._cross.num_positions
        if not self._signature.reads_source_padding:
            length = int(self._source_lengths[origin])
        cross = self._cross.tensors
        cross[:, slot, :, :length] = cross[:, origin, :, :length]

    def copy(self, copies: Sequence[CacheCopy]) -> None:
        """Copy pasts between rows; none that is read is written as well."""
        past = self._past.tensors
        for row, parent, start, stop in copies:
            past[:, row, :, start:stop] = past[:, parent, :, start:stop]

    def step(self, num_slots: int, step_input: StepInput) -> Candidates:
        """Run the decoder over the first ``num_slots`` slots; the answer lives until the next."""
        with self._graph.session() as session:
            return self.step_with(session, num_slots, step_input)

    def step_with(
        self, session: onnxruntime.InferenceSession, num_slots: int, step_input: StepInput
    ) -> Candidates:
        """`step` with one of the graph's sessions."""
        inputs = self._inputs
        inputs.write(num_slots, step_input)
        longest_row = int(inputs.total_length[0]) + self.num_step_tokens - 1
        self._buffers.fit_step(num_slots, longest_row, int(inputs.total_source_length[0]))
        key = (
            id(session),
            num_slots,
            self._past.num_positions,
            self._cross.num_positions,
            step_input.num_candidates,
        )
        bound = self._bindings.get(key)
        if bound is None:
            if len(self._bindings) == MAX_BINDINGS:
                self._bindings.clear()
            bound = self._bind(session, num_slots, step_input.num_candidates)
            self._bindings[key] = bound
        listed = None if self._shortlists is None else self._shortlists.of_first(num_slots)
        return bound.run(step_input, listed)

    def _bind(
        self, session: onnxruntime.InferenceSession, num_slots: int, num_candidates: int
    ) -> BoundStep:
        num_rows = num_slots * self._width
        bound = BoundStep(
            session, self._inputs, num_rows, num_slots, num_candidates, self._signature
        )
        bound.bind_caches(
            [Tensor.of(past[:num_rows]) for past in self._past.tensors],
            [Tensor.of(cross[:num_slots]) for cross in self._cross.tensors],
        )
        return bound

    def _rows(self, slot: int) -> slice:
        return slice(slot * self._width, (slot + 1) * self._width)
