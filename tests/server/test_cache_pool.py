"""Memory of the caches of one worker, for any sequence of running sentences."""

import random
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
from attendant_server.runtime.cache_pool import (
    ANY_EXCESS,
    NO_LIMIT,
    CacheBuffer,
    CachePool,
    WidthBuffers,
)
from attendant_server.runtime.cache_sizes import CacheSizes, StateLayout
from attendant_server.runtime.host_cache import HostBuffer

FLOAT = np.dtype(np.float32)
GROWING, SOURCES = StateLayout(2, 1, 2, FLOAT, 257), StateLayout(2, 1, 2, FLOAT, 256)
NO_STATES = StateLayout(0, 1, 1, FLOAT, 1)
SIZES = CacheSizes(GROWING, NO_STATES, SOURCES)
VECTORS = StateLayout(4, 1, 24, FLOAT, 1)
MIXED_SIZES = CacheSizes(StateLayout(2, 3, 2, FLOAT, 257), VECTORS, SOURCES)
RECURRENT_SIZES = CacheSizes(NO_STATES, VECTORS, SOURCES)
POSITION_BYTES = SOURCES.position_bytes
SPARE = 1000 * POSITION_BYTES
WIDTHS = (1, 2, 4, 8)


class CountingBuffer(CacheBuffer):
    """Has no memory. Checks the operations on it, and counts the bytes that it would copy."""

    num_copied = 0
    num_filled = 0
    """Number of occupied entries."""

    def lay_out(self, capacity, num_positions, num_entries, num_kept):
        assert num_entries * num_positions <= capacity
        assert not capacity or 1 <= num_positions <= capacity
        assert num_entries >= self.num_filled
        assert num_kept <= num_positions
        self.num_copied += num_entries * num_kept


class Worker:
    """The buffers of a pool for all widths, and the sentences that run in them."""

    def __init__(
        self, max_bytes=NO_LIMIT, spare_bytes=SPARE, max_rows=64, max_slots=16, sizes=SIZES
    ):
        self.pool = CachePool(sizes, max_bytes, spare_bytes)
        self.counting: list[CountingBuffer] = []
        self.buffers: dict[int, WidthBuffers] = {}
        self.sources: dict[int, CountingBuffer] = {}
        self.running: dict[int, list[list[int]]] = {}
        """(row, source, limit) of each sentence, by width."""
        for width in WIDTHS:
            slots = min(max_slots, max_rows // width)
            rows = [
                CountingBuffer(self.pool, layout, slots * width, ANY_EXCESS)
                for layout in (sizes.growing, sizes.replaced)
                if layout.num_tensors
            ]
            excess = ANY_EXCESS if width == 1 else 1
            sources = CountingBuffer(self.pool, sizes.sources, slots, excess)
            self.counting += *rows, sources
            self.sources[width] = sources
            self.buffers[width] = WidthBuffers(self.pool, width, rows, [sources])
            self.running[width] = []

    @property
    def num_copied(self):
        return sum(buffer.num_copied for buffer in self.counting)

    def needed(self):
        return sum(
            self.pool.sizes.needed_bytes(
                width, len(sentences), max(s[0] for s in sentences), max(s[1] for s in sentences)
            )
            for width, sentences in self.running.items()
            if sentences
        )

    def join(self, width, source, limit):
        sentences = self.running[width]
        sentences.append([1, source, limit])
        longest = max(s[1] for s in sentences)
        self.buffers[width].fit_source(len(sentences) - 1, 0, longest)
        self.sources[width].num_filled = len(sentences)

    def step(self):
        """A step of every width. Sentences that reach their limit leave."""
        for width, sentences in self.running.items():
            if sentences:
                longest = max(s[0] for s in sentences), max(s[1] for s in sentences)
                self.buffers[width].fit_step(len(sentences), *longest)
        needed = self.needed()
        for width, sentences in self.running.items():
            for sentence in sentences:
                sentence[0] += 1
            kept = [s for s in sentences if s[0] <= s[2]]
            self.sources[width].num_filled = len(kept)
            if sentences and not kept:
                self.buffers[width].release()
            elif len(kept) < len(sentences):
                longest = max(s[0] for s in kept) - 1, max(s[1] for s in kept)
                self.buffers[width].keep(len(kept), *longest)
            self.running[width] = kept
        return needed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spare_bytes", [0, SPARE])
@pytest.mark.parametrize("sizes", [SIZES, MIXED_SIZES, RECURRENT_SIZES])
def test_what_is_allocated_is_bounded_by_what_is_needed(seed, spare_bytes, sizes):
    rng = random.Random(seed)
    worker = Worker(spare_bytes=spare_bytes, sizes=sizes)
    for _ in range(2000):
        for width in WIDTHS:
            if len(worker.running[width]) < 8 and rng.random() < 0.1:
                worker.join(width, rng.choice([5, 20, 60, 256]), rng.choice([8, 30, 100, 257]))
        needed = worker.step()
        figures = worker.pool.figures
        if any(worker.running.values()):
            assert figures.needed <= needed
            assert figures.allocated >= figures.needed
        assert figures.allocated <= 1.5 * figures.needed + spare_bytes
    while any(worker.running.values()):
        worker.step()
    assert worker.pool.figures.needed == 0
    assert worker.pool.figures.allocated <= spare_bytes
    worker.pool.release()
    assert worker.pool.figures.allocated == 0


def test_what_is_needed_is_rows_times_the_longest_and_sentences_times_the_longest_source():
    worker = Worker()
    worker.join(1, source=5, limit=257)
    worker.join(4, source=17, limit=257)
    worker.join(4, source=100, limit=257)
    worker.step()
    positions = (1 * 16 + 16) + (8 * 16 + 2 * 112)
    assert worker.pool.figures.needed == positions * POSITION_BYTES
    for _ in range(16):
        worker.step()
    positions = (1 * 32 + 16) + (8 * 32 + 2 * 112)
    assert worker.pool.figures.needed == positions * POSITION_BYTES


@pytest.mark.parametrize("sizes", [SIZES, MIXED_SIZES, RECURRENT_SIZES])
def test_the_limit_holds_as_long_as_what_runs_needs_no_more(sizes):
    rng = random.Random(3)
    most = 30_000 * POSITION_BYTES
    worker = Worker(max_bytes=most, sizes=sizes)
    for _ in range(3000):
        width, limit, source = rng.choice(WIDTHS), rng.choice([30, 257]), rng.choice([9, 200])
        everything = sum(
            sizes.needed_bytes(w, len(s) + (w == width), 257, 256)
            for w, s in worker.running.items()
        )
        if len(worker.running[width]) < 8 and everything <= most:
            worker.join(width, source, limit)
        worker.step()
        assert worker.pool.allocated <= most


def test_a_need_that_goes_up_and_down_is_not_copied_each_time():
    rng = random.Random(4)
    worker, num_tokens = Worker(), 0
    for _ in range(3000):
        while len(worker.running[1]) < 16:
            worker.join(1, source=rng.randint(4, 60), limit=rng.choice([8, 12, 20, 40, 90]))
        num_tokens += 16
        worker.step()
    # Much less than one position for each decoded position.
    assert worker.num_copied < 0.5 * num_tokens


def test_a_width_that_is_used_no_more_makes_room_for_others():
    worker = Worker(spare_bytes=0)
    worker.join(8, source=200, limit=1)
    worker.step()
    worker.join(1, source=16, limit=100)
    worker.step()
    assert worker.pool.figures.allocated <= 1.5 * 32 * POSITION_BYTES


def resident_bytes():
    """Memory of this process that the system cannot take back at any time."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(value) for name, value, _ in map(str.split, lines)}
    return 1024 * (kilobytes["Rss:"] - kilobytes["LazyFree:"])


def test_memory_that_is_given_back_goes_to_the_system_and_comes_back_as_zeros():
    layout = StateLayout(2, 8, 64, FLOAT, 256)
    pool = CachePool(SIZES, spare_bytes=0)
    before = resident_bytes()
    buffer = HostBuffer(pool, layout, 1000, ANY_EXCESS, lengths=np.full(1000, 256))
    assert resident_bytes() - before < 5e6  # memory is only reserved
    buffer.fit(0, 32, 256)
    buffer.tensors[...] = 1
    full = resident_bytes()
    assert full - before > 0.9 * 32 * 256 * layout.position_bytes
    buffer.fit(8, 8, 256)
    pool.settle()
    assert (buffer.tensors[:, :8] == 1).all()
    assert full - resident_bytes() > 0.9 * 20 * 256 * layout.position_bytes
    buffer.clear()
    pool.settle()
    assert resident_bytes() - before < 5e6
    buffer.fit(0, 8, 256)
    assert not buffer.tensors.any()


@pytest.mark.parametrize(
    ("num_step_tokens", "has_zeros_behind"), [(0, True), (0, False), (2, False)]
)
@pytest.mark.parametrize("seed", range(3))
def test_entries_keep_their_content_however_the_buffer_is_laid_out(
    seed, num_step_tokens, has_zeros_behind
):
    rng = random.Random(seed)
    pool = CachePool(SIZES, spare_bytes=0)
    most_excess = 1 if has_zeros_behind else ANY_EXCESS
    before_step = np.zeros(50, dtype=np.int32)
    buffer = HostBuffer(
        pool, SOURCES, 50, most_excess, before_step, num_step_tokens, has_zeros_behind
    )
    lengths: list[int] = []
    for step in range(300):
        lengths = lengths[: rng.randint(1, 50)]
        used = len(lengths)
        if not used or (used < 50 and rng.random() < 0.6):
            lengths.append(rng.choice([3, 16, 40, 200]))
        before_step[: len(lengths)] = np.array(lengths) - num_step_tokens
        buffer.fit(used, len(lengths), max(lengths))
        pool.settle()
        entries = buffer.tensors[:, :, 0]  # (tensors, entries, positions, head_dim)
        if used < len(lengths):
            length, number = lengths[-1], np.arange(2)[:, None, None]
            entries[:, used, :length] = 1000 * number + length
            if has_zeros_behind:
                entries[:, used, length:] = 0
        for entry, length in enumerate(lengths):
            for tensor in range(2):
                content = entries[tensor, entry]
                assert (content[:length] == 1000 * tensor + length).all(), step
                assert not has_zeros_behind or not content[length:].any()


def test_texts_that_join_after_a_long_one_has_left_need_no_more_than_their_own_rows():
    most = 40 * 16 * POSITION_BYTES
    worker = Worker(max_bytes=most, spare_bytes=0)
    worker.join(1, source=5, limit=256)
    for _ in range(250):
        worker.step()
    worker.join(1, source=5, limit=30)
    while len(worker.running[1]) == 2:
        worker.step()
    assert worker.running[1] == [[ANY, 5, 30]]
    for _ in range(14):
        worker.join(1, source=5, limit=16)
        assert worker.pool.allocated <= most
    worker.step()
    assert worker.pool.allocated <= most


def test_a_buffer_that_cannot_be_made_smaller_stays_as_it_is(caplog, monkeypatch):
    worker = Worker(spare_bytes=0)
    worker.join(4, source=256, limit=100)
    worker.join(1, source=5, limit=100)
    worker.step()

    def lay_out(*_):
        raise MemoryError

    monkeypatch.setattr(CountingBuffer, "lay_out", lay_out)
    before = worker.pool.allocated
    worker.buffers[1].release()
    assert worker.pool.allocated == before
    assert "event=cache_shrink_failed" in caplog.text


def test_a_buffer_that_nothing_needs_shrinks_after_its_longest_source_has_left():
    pool = CachePool(SIZES, spare_bytes=0)
    sources = CountingBuffer(pool, SOURCES, 16, 1)
    sources.fit(0, 16, 128)
    before = sources.capacity
    sources.keep(8, 16)
    sources.clear()
    sources.resize(before // 2)
    assert sources.capacity == before // 2


def test_replaced_states_take_two_copies_of_each_row_however_long_it_is():
    worker = Worker(sizes=MIXED_SIZES)
    worker.join(4, source=17, limit=257)
    worker.step()
    rows = 4 * (16 * MIXED_SIZES.growing.position_bytes + 4 * 24 * 4)
    assert worker.pool.figures.needed == rows + 32 * POSITION_BYTES
    for _ in range(16):
        worker.step()
    rows += 4 * 16 * MIXED_SIZES.growing.position_bytes
    assert worker.pool.figures.needed == rows + 32 * POSITION_BYTES
