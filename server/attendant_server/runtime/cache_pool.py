"""How much memory the caches of one worker take: one policy for all widths, on host and device.

A buffer holds *entries*, rows or sources, with the same number of positions each. Its need is the
number of entries x the longest one, in steps of 16 positions. Its capacity exceeds the need, so
that it is not copied whenever a sentence joins or grows. The capacity of all buffers is bounded.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from attendant_server.engine.models import CacheFigures
from attendant_server.runtime.cache_sizes import (
    POSITION_STEP,
    CacheSizes,
    StateLayout,
    in_steps,
    num_steps,
)
from attendant_server.runtime.sessions import MEMORY_ERRORS

logger = logging.getLogger(__name__)

SPARE_BYTES = 8_000_000
"""Memory that all caches of a model may take beyond 1.5 times their need. Making buffers smaller
than this is not worth the time."""
NO_LIMIT = 2**62
"""Bytes of a pool that has no limit."""
ANY_EXCESS = 2**62
"""The ``most_excess`` of a buffer whose entries may have any number of unused positions."""


class CachePool:
    """The buffers of all caches of one worker.

    ``allocated`` is at most 1.5 x ``needed`` plus a spare. It is also at most the limit, if the
    engine admits no sentences whose need can exceed the limit. Both are in bytes.
    """

    def __init__(
        self, sizes: CacheSizes, max_bytes: int = NO_LIMIT, spare_bytes: int = SPARE_BYTES
    ) -> None:
        self.sizes = sizes
        self.max_bytes = max_bytes
        self.needed = self.allocated = 0
        self.buffers: list[CacheBuffer] = []
        self._spare = spare_bytes
        self.figures = CacheFigures(0, 0)
        """As of the last step, or up to date if nothing runs."""

    def release(self) -> None:
        """Give back the memory of all buffers without a need."""
        for buffer in self.buffers:
            if not buffer.needed:
                buffer.resize(0)
        self._publish()

    def settle(self) -> None:
        """Give back memory if more is allocated than the need allows."""
        for least in (_in_place, _with_half):
            if self.allocated > self.needed * 3 // 2 + self._spare:
                self._shrink(self.allocated - self._most_to_grow(), least)
        self._publish()

    def grant(self, buffer: "CacheBuffer") -> int:
        """The new capacity of a buffer whose need exceeds its capacity, in positions."""
        needed, each = buffer.needed, buffer.position_bytes
        for least in (_in_place, _with_half):
            self._shrink((_with_half(buffer) - self._room(buffer)) * each, least, growing=buffer)
        # Has an effect only near the limit of the pool.
        self._shrink((needed - self._room(buffer)) * each, _exactly, growing=buffer)
        return max(needed, min(4 * needed, self._room(buffer)))

    def _most_to_grow(self) -> int:
        """The bytes to which all buffers together may grow.

        Growth stops well below the bound that `settle` enforces, so that shrinking is rare.
        """
        return min(self.needed * 11 // 8 + self._spare * 3 // 4, self.max_bytes)

    def _room(self, buffer: "CacheBuffer") -> int:
        """The capacity to which a buffer may grow, in positions."""
        each = buffer.position_bytes
        return (self._most_to_grow() - self.allocated) // each + buffer.capacity

    def _shrink(
        self,
        surplus: int,
        least: Callable[["CacheBuffer"], int],
        growing: "CacheBuffer | None" = None,
    ) -> None:
        """Take up to ``surplus`` bytes from the other buffers.

        ``least`` returns the least capacity of a buffer. Buffers without a need come first, then
        those with the largest excess over their need.
        """
        if surplus <= 0:
            return
        for buffer in sorted(self.buffers, key=_shrinks_later):
            capacity = max(buffer.capacity + -surplus // buffer.position_bytes, least(buffer))
            has_failed = buffer.failed_need == buffer.needed
            if buffer is not growing and capacity < buffer.capacity and not has_failed:
                before = buffer.capacity
                try:
                    buffer.resize(capacity)
                except MEMORY_ERRORS:  # no memory for the smaller copy; the buffer stays
                    if buffer.failed_need is None:
                        logger.warning("event=cache_shrink_failed", exc_info=True)
                    buffer.failed_need = buffer.needed
                surplus -= (before - buffer.capacity) * buffer.position_bytes

    def _publish(self) -> None:
        self.figures = CacheFigures(self.needed, self.allocated)


def _shrinks_later(buffer: "CacheBuffer") -> tuple[bool, int]:
    """The order in which buffers give memory back."""
    return buffer.needed > 0, (buffer.needed - buffer.capacity) * buffer.position_bytes


def _in_place(buffer: "CacheBuffer") -> int:
    """The least capacity at which no entry moves."""
    return max(_with_half(buffer), buffer.num_entries * buffer.num_positions)


def _with_half(buffer: "CacheBuffer") -> int:
    return buffer.needed + buffer.needed // 2


def _exactly(buffer: "CacheBuffer") -> int:
    return buffer.needed


class CacheBuffer(ABC):
    """All states of one kind, in all layers, of the rows or of the sources of one width.

    The memory of each tensor is laid out as (entries, heads, positions, head_dim). The number of
    entries that fit follows from ``num_positions``.
    """

    def __init__(
        self,
        pool: CachePool,
        layout: StateLayout,
        max_entries: int,
        most_excess: int,
    ) -> None:
        """Take no memory yet. Entries have at most ``most_excess`` x the positions they need."""
        self.layout, self.position_bytes = layout, layout.position_bytes
        self.needed = self.capacity = 0
        """Positions of all entries together."""
        self.num_positions = 0
        """Positions of each entry, in the present layout."""
        self.failed_need: int | None = None
        """The need for which the buffer could not shrink. None after any change of its capacity."""
        self._pool, self._max_positions = pool, layout.max_positions
        self._max_entries = max_entries
        self._most_excess = most_excess
        self.num_entries = 0
        """Entries in use, or about to be filled."""
        self._num_used = self._longest = 0
        pool.buffers.append(self)

    def fit(self, num_used: int, num_entries: int, longest: int) -> None:
        """Make room for ``num_entries`` entries of ``longest`` positions.

        The content of the first ``num_used`` is kept.
        """
        self._longest = in_steps(longest, self._max_positions)
        self._num_used, self.num_entries = num_used, num_entries
        self._need(num_entries * self._longest)
        if self.needed > self.capacity:
            self._change(min(self._pool.grant(self), self._max_entries * self._max_positions))
        elif not self._is_laid_out_well(self.capacity):
            self._lay_out_again(self.capacity)
        self._num_used = num_entries  # the caller is about to fill the others

    def keep(self, num_entries: int, longest: int) -> None:
        """Reduce the need to the first ``num_entries`` entries of ``longest`` positions."""
        self._longest = in_steps(longest, self._max_positions)
        self._num_used = self.num_entries = num_entries
        self._need(min(self.needed, num_entries * self._longest))

    def clear(self) -> None:
        """Reduce the need to nothing; the memory stays."""
        self._need(0)
        self._num_used = self.num_entries = 0

    def _need(self, needed: int) -> None:
        self._pool.needed += (needed - self.needed) * self.position_bytes
        self.needed = needed

    def resize(self, capacity: int) -> None:
        """Shrink to ``capacity``, at least the need; to 0 if not even one entry would fit."""
        if not self.needed and capacity < self.num_positions:
            capacity = 0
        if capacity != self.capacity:
            self._change(capacity)

    def _change(self, capacity: int) -> None:
        self._lay_out_again(capacity)
        self._pool.allocated += (capacity - self.capacity) * self.position_bytes
        self.capacity, self.failed_need = capacity, None

    def _is_laid_out_well(self, capacity: int) -> bool:
        is_wide_enough = self.num_entries * self.num_positions <= capacity
        most = self._most_excess * self._longest
        return is_wide_enough and self._longest <= self.num_positions <= most

    def _lay_out_again(self, capacity: int) -> None:
        num_positions = self._best_num_positions(capacity)
        num_kept = min(self.num_positions, num_positions, self._longest)
        self.lay_out(capacity, num_positions, self._num_used if num_kept else 0, num_kept)
        self.num_positions = num_positions

    def _best_num_positions(self, capacity: int) -> int:
        """The present number if possible; else one that lets both entries and positions grow.

        Steps are bound anew to each layout, so there are few layouts: powers of two if they fit.
        """
        if not capacity:
            return 0
        if not self.num_entries or self._is_laid_out_well(capacity):
            return self.num_positions
        most = min(self._most_excess * self._longest, self._max_positions)
        for num_entries in (min(self.num_entries * 3 // 2, self._max_entries), self.num_entries):
            num_steps = min(capacity // num_entries, most) // POSITION_STEP
            # 0 if not even one step fits.
            largest_power = (1 << num_steps.bit_length() >> 1) * POSITION_STEP
            if largest_power >= self._longest:
                return largest_power
        return max(self._longest, num_steps * POSITION_STEP)

    @abstractmethod
    def lay_out(self, capacity: int, num_positions: int, num_entries: int, num_kept: int) -> None:
        """Take memory of ``capacity`` positions for entries of ``num_positions``; both may be 0.

        The first ``num_entries`` entries keep their first ``num_kept`` positions, as far as these
        are in use.
        """


class _Need(NamedTuple):
    """The need of one width. Lengths are in steps of positions."""

    num_slots: int
    longest_row: int
    longest_source: int


NOTHING = _Need(0, 0, 0)


class WidthBuffers:
    """The buffers of one search width, and the need that they were last fitted to."""

    def __init__(
        self,
        pool: CachePool,
        width: int,
        rows: Sequence[CacheBuffer],
        sources: Sequence[CacheBuffer],
    ) -> None:
        """``rows`` are the buffers of rows, and ``sources`` is that of sources, if there is one."""
        self._pool, self._width, self._rows, self._sources = pool, width, rows, sources
        self._fitted = NOTHING
        """With 0 slots, the buffers are fitted at the next step in any case."""

    def fit_source(self, slot: int, num_positions: int, longest_source: int) -> None:
        """Make room for a new sentence in ``slot``; ``longest_source`` includes its source.

        Its rows begin with ``num_positions``.
        """
        # A row takes a further position at the next step.
        longest_row = max(self._fitted.longest_row * POSITION_STEP, num_positions + 1)
        self._fitted = _Need(0, num_steps(longest_row), self._fitted.longest_source)
        self._fit(slot, slot + 1, longest_row, longest_source)

    def keep(self, num_slots: int, longest_row: int, longest_source: int) -> None:
        """Reduce the need after sentences have left; the next step gives memory back."""
        for rows in self._rows:
            rows.keep(num_slots * self._width, max(longest_row, 1))
        for sources in self._sources:
            sources.keep(num_slots, longest_source)
        self._fitted = _Need(0, num_steps(longest_row), num_steps(longest_source))

    def fit_step(self, num_slots: int, longest_row: int, longest_source: int) -> None:
        """Make room for a step; give memory back if it needs much less."""
        need = _Need(num_slots, num_steps(longest_row), num_steps(longest_source))
        if need != self._fitted:
            self._fit(num_slots, num_slots, longest_row, longest_source)
            self._pool.settle()
            self._fitted = need

    def release(self) -> None:
        """Reduce the need to nothing; a little memory stays for the next sentence."""
        for rows in self._rows:
            rows.clear()
        for sources in self._sources:
            sources.clear()
        self._fitted = NOTHING
        self._pool.settle()

    def _fit(self, num_used: int, num_slots: int, longest_row: int, longest_source: int) -> None:
        for rows in self._rows:
            rows.fit(num_used * self._width, num_slots * self._width, longest_row)
        for sources in self._sources:
            sources.fit(num_used, num_slots, longest_source)
