"""The caches of the decoder on the host.

Knows graphs and arrays, and nothing of requests, search or scheduling.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.models import CacheCopy
from attendant_server.runtime.cache_pool import ANY_EXCESS, CacheBuffer, CachePool
from attendant_server.runtime.cache_sizes import StateLayout
from attendant_server.runtime.decoder_cache import OnnxDecoderCache
from attendant_server.runtime.model_graphs import ThreadedStep
from attendant_server.runtime.replaced_states import ReplacedStates
from attendant_server.runtime.sessions import Tensor
from attendant_server.runtime.shortlists import Shortlists
from attendant_server.runtime.step import StepInputBuffers

MAP_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)


@dataclass(frozen=True, slots=True)
class EncodedSentence:
    """The states that the encoder gives one source, for every decoder layer in turn.

    These are the keys and values of cross-attention, or of the first positions of its rows.
    """

    keys_values: list[NDArray[np.generic]]  # each (heads, source, head_dim)
    num_tokens: int
    shortlist: NDArray[np.integer] | None = None
    """Token ids that the translation may use; they may repeat. None allows all tokens."""
    vectors: Sequence[NDArray[np.generic]] = ()  # each (width)
    """The replaced states with which its rows begin. Without any, they begin with zeros."""


class HostBuffer(CacheBuffer):
    """One buffer in memory of the host.

    Addresses are reserved for the largest capacity and never change, so that a growing buffer is
    copied only if its entries get longer. Each tensor uses the beginning of its addresses. The rest
    goes back to the system when the capacity falls. Untouched pages take no memory.
    """

    def __init__(
        self,
        pool: CachePool,
        layout: StateLayout,
        max_entries: int,
        most_excess: int,
        lengths: NDArray[np.integer],
        num_step_tokens: int = 0,
        has_zeros_behind: bool = False,
    ) -> None:
        """``lengths`` always holds the number of positions of each entry before the last step.

        The last step added ``num_step_tokens`` to each. With ``has_zeros_behind``, unused positions
        are zero.
        """
        super().__init__(pool, layout, max_entries, most_excess)
        self._lengths, self._num_step_tokens = lengths, num_step_tokens
        self._num_tensors, self._size = layout.num_tensors, layout.num_heads * layout.head_dim
        num_bytes = max_entries * layout.max_positions * self._size * layout.dtype.itemsize
        self._stride = _in_pages(num_bytes)
        # Not from malloc, which keeps freed memory of this size.
        self._map = mmap.mmap(-1, self._num_tensors * self._stride, flags=MAP_FLAGS)
        self.memory: NDArray[np.generic] = np.frombuffer(self._map, layout.dtype).reshape(
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
        layout, used = self.layout, num_entries * num_positions * self._size
        self.tensors: NDArray[np.generic] = self.memory[:, :used].reshape(
            self._num_tensors, num_entries, layout.num_heads, num_positions, layout.head_dim
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
        # Lazily, because there is work: sentences that join soon find the same pages.
        each = self._size * self.layout.dtype.itemsize
        start, end = _in_pages(capacity * each), _in_pages(self.capacity * each)
        if start < end:
            for tensor in range(self._num_tensors):
                self._map.madvise(mmap.MADV_FREE, tensor * self._stride + start, end - start)


def _in_pages(num_bytes: int) -> int:
    return -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


class HostDecoderCache(OnnxDecoderCache[HostBuffer]):
    """The caches of sentences searched with one width in memory of the host.

    Self-attention caches are (rows, heads, positions, head_dim), cross-attention caches (slots,
    heads, source, head_dim). The operators read no further than each row and each source, so that
    these buffers may be longer. Only graphs that read padding compute with whole buffers of
    sources, which therefore are only as long as the longest source.
    """

    def __init__(
        self, graph: ThreadedStep, width: int, max_slots: int, vocab_size: int, pool: CachePool
    ) -> None:
        """For at most ``max_slots`` sentences of ``width`` rows; takes no memory yet.

        ``graph`` must take sentences of ``width`` rows.
        """
        signature, sizes, max_rows = graph.signature, pool.sizes, max_slots * width
        inputs = StepInputBuffers(max_rows, max_slots)
        self._reads_padding = signature.reads_source_padding
        past, replaced = (
            HostBuffer(pool, layout, max_rows, ANY_EXCESS, inputs.lengths, signature.num_tokens)
            if layout.num_tensors
            else None
            for layout in (sizes.growing, sizes.replaced)
        )
        cross = None
        if sizes.sources.num_tensors:
            cross = HostBuffer(
                pool,
                sizes.sources,
                max_slots,
                1 if self._reads_padding else ANY_EXCESS,
                inputs.source_lengths,
                has_zeros_behind=self._reads_padding,
            )
        super().__init__(graph, width, inputs, pool, past, replaced, cross)
        if signature.takes_shortlist:
            self._shortlists = Shortlists(max_slots, width, vocab_size)

    def load(self, slot: int, source: EncodedSentence) -> None:
        """Put an encoded source into a slot."""
        self._fit_source(slot, source.num_tokens)
        if self._shortlists is not None:
            assert source.shortlist is not None
            self._shortlists.load(slot, source.shortlist)
        if self._replaced is not None:
            vectors = self._vectors(self._replaced)
            vectors[:, self._rows(slot)] = 0
            for vector, first in zip(vectors, source.vectors, strict=False):
                vector[self._rows(slot)] = first
        if self._cross is None:
            past_tensors = () if self._past is None else self._past.tensors
            for past, keys_values in zip(past_tensors, source.keys_values, strict=True):
                past[self._rows(slot), :, : source.num_tokens] = keys_values
            return
        for cross, keys_values in zip(self._cross.tensors, source.keys_values, strict=True):
            cross[slot, :, : source.num_tokens] = keys_values
            if self._reads_padding:
                # Masked positions still enter products, with a weight of zero, and zero times a
                # NaN of an earlier source would be NaN.
                cross[slot, :, source.num_tokens :] = 0

    def move(self, origin: int, slot: int, num_positions: int) -> None:
        """Move slot ``origin``, whose rows hold ``num_positions``, to ``slot``."""
        target, source = self._rows(slot), self._rows(origin)
        if self._past is not None:
            past = self._past.tensors
            past[:, target, :, :num_positions] = past[:, source, :, :num_positions]
        if self._replaced is not None:
            vectors = self._vectors(self._replaced)
            vectors[:, target] = vectors[:, source]
        lengths = self._inputs.lengths
        lengths[target] = lengths[source]
        self._source_lengths[slot] = self._source_lengths[origin]
        if self._shortlists is not None:
            self._shortlists.move(origin, slot)
        if self._cross is not None:
            length = self._cross.num_positions
            if not self._reads_padding:
                length = int(self._source_lengths[origin])
            cross = self._cross.tensors
            cross[:, slot, :, :length] = cross[:, origin, :, :length]

    def copy(self, copies: Sequence[CacheCopy]) -> None:
        """Copy caches between rows. No row is both read and written."""
        if self._past is not None:
            past = self._past.tensors
            for row, parent, start, stop in copies:
                past[:, row, :, start:stop] = past[:, parent, :, start:stop]
        if self._replaced is not None:
            vectors = self._vectors(self._replaced)
            for row, parent, _, _ in copies:
                vectors[:, row] = vectors[:, parent]

    def _vectors(self, states: ReplacedStates[HostBuffer]) -> NDArray[np.generic]:
        """The current copies of the replaced states: (states, rows, 1, 1, width)."""
        return states.buffer.tensors[states.copies(states.current)]

    def _first_entries(self, buffer: HostBuffer, num_entries: int) -> list[Tensor]:
        return [Tensor.of(tensor[:num_entries]) for tensor in buffer.tensors]

    def _rows(self, slot: int) -> slice:
        return slice(slot * self._width, (slot + 1) * self._width)
