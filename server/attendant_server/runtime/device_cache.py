"""The caches of the decoder on a device, which are never copied to the host.

Sentences that join or move, and rows that change parents, are copied by a small graph on the device
itself; docs/decisions/0005-keep-caches-on-the-device.md gives the reasons.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.models import CacheCopy
from attendant_server.runtime.cache_pool import ANY_EXCESS, CacheBuffer, CachePool
from attendant_server.runtime.cache_sizes import StateLayout
from attendant_server.runtime.decoder_cache import OnnxDecoderCache
from attendant_server.runtime.model_graphs import ThreadedStep
from attendant_server.runtime.sessions import Buffer, Tensor, graph_session
from attendant_server.runtime.step import StepInputBuffers

WORD_BYTES = 8


class KeyValueBuffer:
    """States of one kind, (tensors, entries, heads, positions, head_dim), in one buffer.

    An entry is a row, a slot, or a text of an encoded batch.
    """

    def __init__(
        self, layout: StateLayout, num_entries: int, num_positions: int, device: str
    ) -> None:
        """Allocate it; the content is undefined."""
        self.num_positions = num_positions
        self._layout, self._device = layout, device
        self._shape = (num_entries, layout.num_heads, num_positions, layout.head_dim)
        self._bytes_each = prod(self._shape) * layout.dtype.itemsize
        self._buffer = Buffer(layout.num_tensors * self._bytes_each // WORD_BYTES, device)
        positions_each = prod(self._shape[:3])
        words = layout.head_dim * layout.dtype.itemsize // WORD_BYTES
        self._by_position = self._buffer.tensor(
            np.int64, (layout.num_tensors * positions_each, words)
        )
        """The whole buffer as (positions, words): a row for each position of each head."""
        tensors = np.arange(layout.num_tensors)[:, None] * positions_each
        self._strips = (tensors + np.arange(layout.num_heads) * num_positions).ravel()
        """Where entry 0 begins for each tensor and head, in positions."""

    def tensor(self, index: int, num_entries: int) -> Tensor:
        """The first entries of tensor ``index`` of `StateLayout.num_tensors`."""
        shape = (num_entries, *self._shape[1:])
        return self._buffer.tensor(self._layout.dtype, shape, index * self._bytes_each)

    def zero(self) -> None:
        """Fill it with zeros."""
        session = graph_session("zeros", self._device)
        binding = session.io_binding()
        shape = np.array(self._by_position.shape, dtype=np.int64)
        Tensor.of(shape).bind_input(binding, "shape")
        self._by_position.bind_output(binding, "memory")
        session.run_with_iobinding(binding)

    def copy(
        self,
        entries: Sequence[int],
        origin: "KeyValueBuffer",
        origin_entries: Sequence[int],
        num_positions: int,
        num_kept: int | None = None,
    ) -> None:
        """Copy the first ``num_positions`` of entries of ``origin``, which may be this buffer.

        With ``num_kept``, positions from there on become zero instead. All entries are read
        before any is written. An ``origin`` of fewer tensors is copied several times.
        """
        kept = num_positions if num_kept is None else num_kept
        session = graph_session("copy_positions", self._device)
        binding = session.io_binding()
        inputs = {
            "origin_strips": np.resize(origin._strips, self._strips.shape),
            "origin_starts": origin._starts(origin_entries),
            "strips": self._strips,
            "starts": self._starts(entries),
            "num_positions": np.array([num_positions], dtype=np.int64),
            "num_kept": np.array([kept], dtype=np.int64),
        }
        for name, array in inputs.items():
            Tensor.of(array).bind_input(binding, name)
        origin._by_position.bind_input(binding, "origin")
        self._by_position.bind_input(binding, "memory")
        self._by_position.bind_output(binding, "copied")
        session.run_with_iobinding(binding)

    def _starts(self, entries: Sequence[int]) -> NDArray[np.int64]:
        """Positions between the beginning of entry 0 and that of each of ``entries``."""
        return np.asarray(entries, dtype=np.int64) * (self._layout.num_heads * self.num_positions)


@dataclass(frozen=True, slots=True)
class DeviceEncodedBatch:
    """What the encoder gives a batch of sources, as `EncodedSentence` has it for one."""

    keys_values: KeyValueBuffer | None
    vectors: KeyValueBuffer | None


@dataclass(frozen=True, slots=True)
class DeviceEncodedSentence:
    """One source of an encoded batch, whose states stay on the device together."""

    batch: DeviceEncodedBatch
    index: int
    num_tokens: int


class DeviceBuffer(CacheBuffer):
    """One buffer of a `CachePool` in memory of a device."""

    entries: KeyValueBuffer | None = None

    def __init__(
        self,
        device: str,
        pool: CachePool,
        layout: StateLayout,
        max_entries: int,
        most_excess: int,
        on_moved: Callable[[], None],
    ) -> None:
        """``on_moved`` is called before the memory is replaced, so that no step uses it again."""
        super().__init__(pool, layout, max_entries, most_excess)
        self._device, self._on_moved = device, on_moved

    def lay_out(self, capacity: int, num_positions: int, num_entries: int, num_kept: int) -> None:
        """Copy the kept positions to new memory, which is zero elsewhere."""
        self._on_moved()
        before, self.entries = self.entries, None
        if not capacity:
            return
        try:
            fitting = capacity // num_positions
            entries = KeyValueBuffer(self.layout, fitting, num_positions, self._device)
            entries.zero()
            if before is not None and num_entries:
                entries.copy(range(num_entries), before, range(num_entries), num_kept)
            before = entries
        finally:
            self.entries = before


class DeviceDecoderCache(OnnxDecoderCache[DeviceBuffer]):
    """The caches of sentences searched with one width in memory of a device.

    Kernels split their work by the length of the buffer of sources, which therefore is at most
    twice as long as the longest source.
    """

    def __init__(
        self, graph: ThreadedStep, width: int, max_slots: int, device: str, pool: CachePool
    ) -> None:
        """For at most ``max_slots`` sentences of ``width`` rows; takes no memory yet."""
        sizes, max_rows = pool.sizes, max_slots * width
        inputs = StepInputBuffers(max_rows, max_slots, device)
        past, replaced = (
            DeviceBuffer(device, pool, layout, max_rows, ANY_EXCESS, self._unbind)
            if layout.num_tensors
            else None
            for layout in (sizes.growing, sizes.replaced)
        )
        cross = None
        if sizes.sources.num_tensors:
            cross = DeviceBuffer(device, pool, sizes.sources, max_slots, 2, self._unbind)
        super().__init__(graph, width, inputs, pool, past, replaced, cross)

    def load(self, slot: int, source: DeviceEncodedSentence) -> None:
        """Put an encoded source into a slot."""
        self._fit_source(slot, source.num_tokens)
        if self._replaced is not None:
            vectors, rows = self._entries(self._replaced.buffer), self._rows(slot)
            if source.batch.vectors is None:
                vectors.copy(rows, vectors, rows, 1, num_kept=0)
            else:
                vectors.copy(rows, source.batch.vectors, [source.index] * self._width, 1)
        if self._cross is None:
            self._load_rows(slot, source)
            return
        cross = self._entries(self._cross)
        assert source.batch.keys_values is not None
        # Zeros after the end: masked positions still enter products, with a weight of zero, and
        # zero times a NaN of an earlier source would be NaN.
        origin = source.batch.keys_values
        cross.copy([slot], origin, [source.index], cross.num_positions, source.num_tokens)

    def _load_rows(self, slot: int, source: DeviceEncodedSentence) -> None:
        """Let the rows of a slot begin with the positions of an encoded source, if it has any."""
        keys_values = source.batch.keys_values
        if self._past is not None and keys_values is not None and source.num_tokens:
            origins = [source.index] * self._width
            past = self._entries(self._past)
            past.copy(self._rows(slot), keys_values, origins, source.num_tokens)

    def move(self, origin: int, slot: int, num_positions: int) -> None:
        """Move slot ``origin``, whose rows hold ``num_positions``, to ``slot``."""
        rows, origin_rows = self._rows(slot), self._rows(origin)
        if self._past is not None and num_positions:
            past = self._entries(self._past)
            past.copy(rows, past, origin_rows, num_positions)
        if self._replaced is not None:
            vectors = self._entries(self._replaced.buffer)
            vectors.copy(rows, vectors, origin_rows, 1)
        self._source_lengths[slot] = self._source_lengths[origin]
        if self._cross is not None:
            cross = self._entries(self._cross)
            cross.copy([slot], cross, [origin], cross.num_positions)

    def copy(self, copies: Sequence[CacheCopy]) -> None:
        """Copy caches between rows, all in one run and from their first position."""
        rows, parents, _, stops = zip(*copies, strict=True)
        if self._past is not None:
            past = self._entries(self._past)
            past.copy(rows, past, parents, max(stops))
        if self._replaced is not None:
            vectors = self._entries(self._replaced.buffer)
            vectors.copy(rows, vectors, parents, 1)

    def _first_entries(self, buffer: DeviceBuffer, num_entries: int) -> list[Tensor]:
        entries = self._entries(buffer)
        return [entries.tensor(i, num_entries) for i in range(buffer.layout.num_tensors)]

    def _entries(self, buffer: DeviceBuffer) -> KeyValueBuffer:
        assert buffer.entries is not None
        return buffer.entries

    def _rows(self, slot: int) -> range:
        return range(slot * self._width, (slot + 1) * self._width)
