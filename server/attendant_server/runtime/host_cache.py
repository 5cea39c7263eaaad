"""The caches of the decoder on the host.

Knows graphs and arrays, and nothing of requests, search or scheduling.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from attendant_server.engine.models import CacheCopy, Candidates, StepInput
from attendant_server.runtime.cache_pool import NO_LIMIT, CacheBuffer, CachePool, WidthBuffers
from attendant_server.runtime.cache_sizes import CacheSizes
from attendant_server.runtime.model_graphs import ThreadedStep
from attendant_server.runtime.sessions import Tensor
from attendant_server.runtime.shortlists import Shortlists
from attendant_server.runtime.step import BoundStep, StepInputBuffers

MAX_BINDINGS = 256
"""Bound steps that one memory keeps, a few kilobytes each; beyond, it begins anew."""

MAP_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)


@dataclass(frozen=True, slots=True)
class EncodedSentence:
    """Cross-attention keys and values of one source, for every decoder layer in turn."""

    keys_values: list[NDArray[np.generic]]  # each (heads, source, head_dim)
    num_tokens: int
    shortlist: NDArray[np.integer] | None = None
    """Token ids, not all different, that the translation may use; None for any."""


class HostBuffer(CacheBuffer):
    """One buffer in memory of the host.

    Addresses are reserved for the largest capacity and never change, so that a buffer that grows is
    copied only if its entries get longer. Of each tensor the beginning is in use, and what lies
    behind goes back to the system when the capacity falls: memory that nobody touches is none.
    """

    def __init__(
        self,
        pool: CachePool,
        max_entries: int,
        max_positions: int,
        most_excess: int,
        lengths: NDArray[np.integer],
        num_step_tokens: int = 0,
        has_zeros_behind: bool = False,
    ) -> None:
        """``lengths`` are, at any time, the positions in use of each entry before the last step.

        A step adds ``num_step_tokens`` to each. ``has_zeros_behind`` if the positions after them
        must be zero.
        """
        super().__init__(pool, max_entries, max_positions, most_excess)
        self._lengths, self._num_step_tokens = lengths, num_step_tokens
        sizes = pool.sizes
        self._num_tensors, self._size = sizes.num_tensors, sizes.num_heads * sizes.head_dim
        num_bytes = max_entries * max_positions * self._size * sizes.dtype.itemsize
        self._stride = _in_pages(num_bytes)
        # Not from malloc, which keeps memory of this size when it is given back.
        self._map = mmap.mmap(-1, self._num_tensors * self._stride, flags=MAP_FLAGS)
        self.memory: NDArray[np.generic] = np.frombuffer(self._map, sizes.dtype).reshape(
            self._num_tensors, -1
        )
        """(tensors, elements)"""
        self._has_zeros_behind = has_zeros_behind
        self._set_tensors(0, 0)

    def lay_out(self, capacity: int, num_positions: int, num_entries: int, num_kept: int) -> None:
        """Move the positions in use."""
        before = self.tensors
        self._set_tensors(capacity // num_positions if capacity else 0, num_positions)
        if num_entries and num_positions != self.num_positions:
            self._move(before, self.tensors, num_entries, num_kept)
        if capacity < self.capacity:
            self._give_back(capacity)

    def _set_tensors(self, num_entries: int, num_positions: int) -> None:
        sizes, used = self.sizes, num_entries * num_positions * self._size
        self.tensors: NDArray[np.generic] = self.memory[:, :used].reshape(
            self._num_tensors, num_entries, sizes.num_heads, num_positions, sizes.head_dim
        )
        """(tensors, entries, heads, positions, head_dim); the first entries of each lie together"""

    def _move(
        self,
        old: NDArray[np.generic],
        new: NDArray[np.generic],
        num_entries: int,
        num_kept: int,
    ) -> None:
        """Move entries to their places in another layout of the same memory.

        A growing layout is written from its end, a shrinking one from its beginning, so that no
        entry is overwritten before it has moved. NumPy handles overlaps of an entry with itself.
        """
        lengths = np.minimum(self._lengths[:num_entries] + self._num_step_tokens, num_kept)
        entries = list(enumerate(lengths.tolist()))
        for entry, length in entries if new.shape[3] < old.shape[3] else reversed(entries):
            new[:, entry, :, :length] = old[:, entry, :, :length]
            if self._has_zeros_behind:
                new[:, entry, :, length:] = 0

    def _give_back(self, capacity: int) -> None:
        if not capacity:
            self._map.madvise(mmap.MADV_DONTNEED)
            return
        # Lazily, as there is work: sentences that join soon then find the same pages.
        each = self._size * self.sizes.dtype.itemsize
        start, end = _in_pages(capacity * each), _in_pages(self.capacity * each)
        if start < end:
            for tensor in range(self._num_tensors):
                self._map.madvise(mmap.MADV_FREE, tensor * self._stride + start, end - start)


def _in_pages(num_bytes: int) -> int:
    return -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


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
        graph: ThreadedStep,
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
        self._num_extra_positions = self._signature.num_extra_positions
        self._bindings: dict[tuple[int, ...], BoundStep] = {}
        pool = pool or CachePool(sizes)
        reads_padding = self._signature.reads_source_padding
        rows = max_slots * width
        self._inputs = StepInputBuffers(rows, max_slots)
        self._row_lengths = self._inputs.lengths
        self._source_lengths = self._inputs.source_lengths
        self._past = HostBuffer(
            pool,
            rows,
            sizes.max_target_positions,
            NO_LIMIT,
            self._row_lengths,
            self.num_step_tokens,
        )
        self._cross = HostBuffer(
            pool,
            max_slots,
            sizes.max_source_tokens,
            1 if reads_padding else NO_LIMIT,
            self._source_lengths,
            has_zeros_behind=reads_padding,
        )
        self._buffers = WidthBuffers(pool, width, self._past, self._cross)
        takes_shortlist = self._signature.takes_shortlist
        self._shortlists = Shortlists(max_slots, width, vocab_size) if takes_shortlist else None

    @property
    def num_bytes(self) -> int:
        """Memory of all caches at this moment."""
        return self._buffers.num_bytes

    def keep(self, num_slots: int, longest_row: int) -> None:
        """Slots from ``num_slots`` on are unused; rows hold at most ``longest_row`` positions."""
        longest_source = int(self._source_lengths[:num_slots].max())
        self._buffers.keep(num_slots, longest_row, longest_source)

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
        self._row_lengths[target] = self._row_lengths[source]
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
        longest_row = int(inputs.total_length[0]) + self._num_extra_positions
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
