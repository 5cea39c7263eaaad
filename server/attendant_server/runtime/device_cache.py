"""The memory of the decoder on a device: caches that never come to the host.

What joins, moves or changes its parent is copied by a small graph on the device itself;
docs/decisions/0005-keep-caches-on-the-device.md tells why it is done like this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.models import CacheCopy, Candidates, StepInput
from attendant_server.runtime.cache_sizes import SMALLEST_NUM_POSITIONS, CacheSizes, doubled
from attendant_server.runtime.host_cache import MAX_BINDINGS
from attendant_server.runtime.sessions import Buffer, Tensor, graph_session
from attendant_server.runtime.step import BoundStep, StepInputs, StepRunner

SMALLEST_NUM_SLOTS = 8
"""Slots of the smallest caches; each next size has twice as many."""
WORD_BYTES = 8


class KeyValueBuffer:
    """Keys and values of all layers, (tensors, entries, heads, positions, head_dim), in one buffer.

    An entry is a row, a slot, or a text of an encoded batch.
    """

    def __init__(
        self, sizes: CacheSizes, num_entries: int, num_positions: int, device: str
    ) -> None:
        """Allocate it; the content is undefined."""
        self.num_entries, self.num_positions = num_entries, num_positions
        self._sizes, self._device = sizes, device
        self._shape = (num_entries, sizes.num_heads, num_positions, sizes.head_dim)
        self._bytes_each = prod(self._shape) * sizes.dtype.itemsize
        if sizes.head_dim * sizes.dtype.itemsize % WORD_BYTES:
            raise ValueError(f"head_dim {sizes.head_dim} does not fill words of 64 bits")
        self._words = sizes.head_dim * sizes.dtype.itemsize // WORD_BYTES
        self._buffer = Buffer(sizes.num_tensors * self._bytes_each // WORD_BYTES, device)
        self.num_bytes = self._buffer.num_bytes

    def tensor(self, index: int, num_entries: int) -> Tensor:
        """The first entries of tensor ``index`` of `CacheSizes.num_tensors`."""
        shape = (num_entries, *self._shape[1:])
        return self._buffer.tensor(self._sizes.dtype, shape, index * self._bytes_each)

    def zero(self) -> None:
        """Make it all zeros."""
        session = graph_session("zeros", self._device)
        binding = session.io_binding()
        memory = self._by_position()
        Tensor.of(np.array(memory.shape, dtype=np.int64)).bind_input(binding, "shape")
        memory.bind_output(binding, "memory")
        session.run_with_iobinding(binding)

    def copy(
        self,
        entries: Sequence[int],
        origin: "KeyValueBuffer",
        origin_entries: Sequence[int],
        num_positions: int,
        num_kept: int | None = None,
    ) -> None:
        """Copy the first ``num_positions`` of entries of ``origin``, which may be this cache.

        With ``num_kept``, positions from there on become zero instead. All entries are read
        before any is written.
        """
        kept = num_positions if num_kept is None else num_kept
        session = graph_session("copy_positions", self._device)
        binding = session.io_binding()
        inputs = {
            "origin_strips": origin._strips(),
            "origin_starts": origin._starts(origin_entries),
            "strips": self._strips(),
            "starts": self._starts(entries),
            "num_positions": np.array([num_positions], dtype=np.int64),
            "num_kept": np.array([kept], dtype=np.int64),
        }
        for name, array in inputs.items():
            Tensor.of(array).bind_input(binding, name)
        origin._by_position().bind_input(binding, "origin")
        self._by_position().bind_input(binding, "memory")
        self._by_position().bind_output(binding, "copied")
        session.run_with_iobinding(binding)

    def _by_position(self) -> Tensor:
        """All of it as (positions, words): a row for each position of each head."""
        num_rows = self._sizes.num_tensors * prod(self._shape[:3])
        return self._buffer.tensor(np.int64, (num_rows, self._words))

    def _strips(self) -> NDArray[np.int64]:
        """Where entry 0 begins for each tensor and head, in positions."""
        tensors = np.arange(self._sizes.num_tensors)[:, None] * prod(self._shape[:3])
        heads = np.arange(self._sizes.num_heads)[None] * self.num_positions
        return (tensors + heads).ravel()

    def _starts(self, entries: Sequence[int]) -> NDArray[np.int64]:
        """How far behind entry 0 these begin, in positions."""
        return np.asarray(entries, dtype=np.int64) * (self._sizes.num_heads * self.num_positions)


@dataclass(frozen=True, slots=True)
class DeviceEncodedSentence:
    """One source of an encoded batch, whose keys and values stay on the device together."""

    batch: KeyValueBuffer
    index: int
    num_tokens: int


class DeviceDecoderCache:
    """The caches of sentences searched with one width, on a device, and the steps over them.

    Slots and positions double when they no longer suffice, and shrink when a quarter would do:
    each is less than four times what is needed, or at its smallest. What is in use is copied.
    """

    num_step_tokens = 1

    def __init__(
        self,
        decoder_step: StepRunner,
        sizes: CacheSizes,
        width: int,
        max_slots: int,
        device: str,
    ) -> None:
        self._session, self._sizes, self._device = decoder_step.shared, sizes, device
        self._signature = decoder_step.signature
        self._width, self._max_slots = width, max_slots
        self._inputs = StepInputs(max_slots * width, max_slots, device)
        self._source_lengths = self._inputs.source_lengths
        self._past: KeyValueBuffer | None = None
        self._cross: KeyValueBuffer | None = None
        self._bindings: dict[tuple[int, int], BoundStep] = {}

    @property
    def num_bytes(self) -> int:
        """Memory of all caches at this moment."""
        return sum(cache.num_bytes for cache in (self._past, self._cross) if cache is not None)

    def release(self) -> None:
        """Give the memory back, but for caches of the smallest size: they will soon be of use."""
        if self._cross is not None and self._cross.num_entries > SMALLEST_NUM_SLOTS:
            self._past = self._cross = None
            self._bindings.clear()

    def load(self, slot: int, source: DeviceEncodedSentence) -> None:
        """Put an encoded source into a slot."""
        self._source_lengths[slot] = source.num_tokens
        _, cross = self._fit(slot, slot + 1, max(int(self._inputs.total_length[0]), 1))
        # Zero behind the end: masked positions still enter products, with a weight of zero, and
        # zero times what a broken source left there would be NaN for its successor.
        cross.copy([slot], source.batch, [source.index], cross.num_positions, source.num_tokens)

    def move(self, origin: int, slot: int, num_positions: int) -> None:
        """Move a slot whose rows hold ``num_positions`` tokens."""
        assert self._past is not None
        assert self._cross is not None
        if num_positions:
            self._past.copy(self._rows(slot), self._past, self._rows(origin), num_positions)
        self._source_lengths[slot] = self._source_lengths[origin]
        self._cross.copy([slot], self._cross, [origin], self._cross.num_positions)

    def copy(self, copies: Sequence[CacheCopy]) -> None:
        """Copy pasts between rows, all in one run and from their beginning."""
        assert self._past is not None
        rows, parents, _, stops = zip(*copies, strict=True)
        self._past.copy(rows, self._past, parents, max(stops))

    def step(self, num_slots: int, step_input: StepInput) -> Candidates:
        """Run the decoder over the first ``num_slots`` slots; the answer lives until the next."""
        self._inputs.write(num_slots, step_input)
        past, cross = self._fit(num_slots, num_slots, int(self._inputs.total_length[0]))
        key = (num_slots, step_input.num_candidates)
        if key not in self._bindings:
            if len(self._bindings) == MAX_BINDINGS:
                self._bindings.clear()
            self._bindings[key] = self._bind(past, cross, *key)
        return self._bindings[key].run(step_input)

    def _bind(
        self, past: KeyValueBuffer, cross: KeyValueBuffer, num_slots: int, num_candidates: int
    ) -> BoundStep:
        num_rows = num_slots * self._width
        bound = BoundStep(
            self._session, self._inputs, num_rows, num_slots, num_candidates, self._signature
        )
        tensors = range(self._sizes.num_tensors)
        bound.bind_caches(
            [past.tensor(i, num_rows) for i in tensors],
            [cross.tensor(i, num_slots) for i in tensors],
        )
        return bound

    def _rows(self, slot: int) -> range:
        return range(slot * self._width, (slot + 1) * self._width)

    def _fit(
        self, num_used: int, num_slots: int, num_target_positions: int
    ) -> tuple[KeyValueBuffer, KeyValueBuffer]:
        """Caches that hold ``num_slots`` slots, of which ``num_used`` are in use already."""
        sizes = self._sizes
        longest = int(self._source_lengths[:num_slots].max())
        slots = doubled(SMALLEST_NUM_SLOTS, num_slots, self._max_slots)
        targets = doubled(SMALLEST_NUM_POSITIONS, num_target_positions, sizes.max_target_positions)
        sources = doubled(SMALLEST_NUM_POSITIONS, longest, sizes.max_source_tokens)
        rows_used, rows = num_used * self._width, slots * self._width
        self._past = self._resized(self._past, rows_used, rows, targets)
        self._cross = self._resized(self._cross, num_used, slots, sources)
        return self._past, self._cross

    def _resized(
        self, cache: KeyValueBuffer | None, num_used: int, num_entries: int, num_positions: int
    ) -> KeyValueBuffer:
        """``cache``, or one of a better size, to which the entries in use are copied."""
        if cache is not None:
            num_entries = _steady(cache.num_entries, num_entries)
            num_positions = _steady(cache.num_positions, num_positions)
            if (cache.num_entries, cache.num_positions) == (num_entries, num_positions):
                return cache
        resized = KeyValueBuffer(self._sizes, num_entries, num_positions, self._device)
        resized.zero()
        if cache is not None and num_used:
            kept = min(cache.num_positions, num_positions)
            resized.copy(range(num_used), cache, range(num_used), kept)
        self._bindings.clear()
        return resized


def _steady(current: int, wanted: int) -> int:
    """The current size unless it is too small, or more than twice what is wanted."""
    return current if wanted <= current <= 2 * wanted else wanted
