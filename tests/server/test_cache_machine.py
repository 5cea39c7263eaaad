"""Any sequence of operations on the caches of one worker, against plain lists of their content."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from attendant_server.engine.cache_budget import CacheBudget
from attendant_server.engine.models import NO_TOKEN_BIAS, CacheCopy, StepInput
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.cache_sizes import CacheSizes, StateLayout
from attendant_server.runtime.host_cache import EncodedSentence, HostDecoderCache
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

FLOAT = np.dtype(np.float32)
NO_STATES = StateLayout(0, 1, 1, FLOAT, 1)
GROWING, VECTORS = StateLayout(2, 2, 3, FLOAT, 70), StateLayout(4, 1, 5, FLOAT, 1)
SOURCES = StateLayout(2, 1, 3, FLOAT, 50)
WIDTHS, MAX_SLOTS = (1, 2, 4), 6
MAX_ROWS = MAX_SLOTS * sum(WIDTHS)
pairs_of_rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=4)
widths, numbers = st.sampled_from(WIDTHS), st.integers(0, 100)


@dataclass(frozen=True)
class Variant:
    """A kind of model, and the limits of its caches."""

    sizes: CacheSizes
    num_greedy_tokens: int = 1
    """Tokens of each step with one row for each sentence."""
    reads_padding: bool = False
    spare_bytes: int = 0
    max_share: float = 1.0
    """The limit of the pool, relative to the need of all slots."""

    @property
    def has_prompts(self) -> bool:
        """Whether encoded sources are the first positions of rows."""
        return not self.sizes.sources.num_tensors


ATTENTION = CacheSizes(GROWING, NO_STATES, SOURCES)
PROMPTS = CacheSizes(GROWING, NO_STATES, NO_STATES)
VARIANTS = {
    "self-attention": Variant(ATTENTION),
    "self-attention with two tokens in a step": Variant(ATTENTION, num_greedy_tokens=2),
    "graphs that read padding": Variant(ATTENTION, reads_padding=True, spare_bytes=20_000),
    "prompts": Variant(PROMPTS, num_greedy_tokens=2),
    "little memory and prompts": Variant(PROMPTS, spare_bytes=5_000, max_share=0.15),
    "vectors": Variant(CacheSizes(NO_STATES, VECTORS, SOURCES)),
    "vectors and self-attention": Variant(CacheSizes(GROWING, VECTORS, SOURCES)),
    "little memory": Variant(ATTENTION, num_greedy_tokens=2, max_share=0.15),
    "little memory and vectors": Variant(
        CacheSizes(GROWING, VECTORS, SOURCES), spare_bytes=5_000, max_share=0.15
    ),
}


@dataclass
class Row:
    """The content of a row: a number for each position, and one of its replaced states."""

    positions: list[int] = field(default_factory=list)
    vector: int = 0


@dataclass
class Sentence:
    """The content of a slot."""

    width: int
    source: int
    """The number that fills the states of the source."""
    num_source_tokens: int
    longest_row: int
    rows: list[Row]


class WritingStep:
    """Takes the place of a bound step, with the arrays that the caches had when it was bound."""

    def __init__(self, cache: "WritingCache", num_rows: int) -> None:
        self._cache = cache
        past, replaced = cache._past, cache._replaced
        self._past = None if past is None else past.tensors[:, :num_rows]
        self._vectors = None if replaced is None else replaced.buffer.tensors[:, :num_rows]

    def run(self, step_input: StepInput, listed: object) -> None:
        """Write the tokens as the content of positions; add them to the replaced states."""
        tokens, states = np.asarray(step_input.tokens), self._cache._replaced
        if self._past is not None:
            for row, (token, length) in enumerate(zip(tokens, step_input.lengths, strict=True)):
                for i in range(self._cache.num_step_tokens):
                    self._past[:, row, :, length + i] = token + i
        if states is not None and self._vectors is not None:
            read, written = states.copies(states.current), states.copies(1 - states.current)
            self._vectors[written] = self._vectors[read].astype(FLOAT) + tokens[:, None, None, None]
            states.current = 1 - states.current

    def forget(self) -> None:
        """`BoundStep.forget`: there are no biases."""


class WritingCache(HostDecoderCache):
    """A cache whose steps need no graph."""

    def _bind(self, session: Any, num_slots: int, num_candidates: int) -> Any:
        return WritingStep(self, num_slots * self._width)


@contextmanager
def no_session() -> Iterator[None]:
    yield None


def new_cache(variant: Variant, width: int, pool: CachePool) -> WritingCache:
    num_tokens = variant.num_greedy_tokens if width == 1 else 1
    signature = SimpleNamespace(
        num_tokens=num_tokens,
        num_extra_positions=num_tokens - 1,
        takes_penalties=False,
        takes_shortlist=False,
        reads_source_padding=variant.reads_padding,
    )
    graph: Any = SimpleNamespace(signature=signature, session=no_session)
    return WritingCache(graph, width, MAX_SLOTS, 100, pool)


class CacheMachine(RuleBasedStateMachine):
    """Sentences join, are decoded, are copied among rows and leave, as in `RunningBatch`."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant, sizes = variant, variant.sizes
        all_slots = sum(sizes.needed_bytes(width, MAX_SLOTS, 10**9, 10**9) for width in WIDTHS)
        self.pool = CachePool(sizes, int(variant.max_share * all_slots), variant.spare_bytes)
        self.budget = CacheBudget(
            self.pool.max_bytes, MAX_ROWS, MAX_SLOTS * len(WIDTHS), self.needed_bytes
        )
        self.caches = {width: new_cache(variant, width, self.pool) for width in WIDTHS}
        self.running: dict[int, list[Sentence]] = {width: [] for width in WIDTHS}
        self.last_number = 0

    @rule(
        width=widths,
        num_source_tokens=st.integers(1, SOURCES.max_positions),
        max_output_tokens=st.integers(1, GROWING.max_positions - SOURCES.max_positions - 1),
    )
    def join(self, width, num_source_tokens, max_output_tokens):
        sentences = self.running[width]
        num_prompt_tokens = num_source_tokens if self.variant.has_prompts else 0
        prompt = [self.new_number() for _ in range(num_prompt_tokens)]
        rows = [Row(list(prompt)) for _ in range(width)]
        source, longest_row = self.new_number(), num_prompt_tokens + max_output_tokens
        joining = Sentence(width, source, num_source_tokens, longest_row, rows)
        has_room = self.budget.has_room(self.running, width, joining)  # type: ignore[arg-type]
        if len(sentences) == MAX_SLOTS or not has_room:
            return
        layout = GROWING if self.variant.has_prompts else SOURCES
        states = np.zeros(
            (layout.num_tensors, layout.num_heads, num_source_tokens, layout.head_dim), FLOAT
        )
        if self.variant.has_prompts:
            states += np.array(prompt, FLOAT)[:, None]
        else:
            states += source + np.arange(layout.num_tensors)[:, None, None, None]
        self.caches[width].load(len(sentences), EncodedSentence(list(states), num_source_tokens))
        sentences.append(joining)

    @rule(width=widths, num_steps=st.integers(1, 20))
    def step(self, width, num_steps):
        for _ in range(num_steps):
            self.step_once(width)

    @rule(width=st.sampled_from(WIDTHS[1:]), slot=numbers, pairs=pairs_of_rows)
    def copy_rows(self, width, slot, pairs):
        sentences = self.running[width]
        if not sentences:
            return
        slot %= len(sentences)
        rows = sentences[slot].rows
        copies: dict[int, int] = {}
        for row, parent in ((row % width, parent % width) for row, parent in pairs):
            if row != parent and row not in copies.values() and parent not in copies:
                copies[row] = parent
        self.caches[width].copy([self.copy_of(slot, rows, *each) for each in copies.items()])
        for row, parent in copies.items():
            rows[row] = Row(list(rows[parent].positions), rows[parent].vector)

    @rule(width=widths, slots=st.sets(numbers, max_size=3))
    def finish(self, width, slots):
        num_sentences = len(self.running[width])
        self.drop(width, {slot % num_sentences for slot in slots} if num_sentences else set())

    @rule(width=widths)
    def clear(self, width):
        self.running[width].clear()
        self.release(width)

    @precondition(lambda self: not any(self.running.values()))
    @rule()
    def idle(self):
        self.pool.release()
        assert self.pool.allocated == 0

    @invariant()
    def contents_are_those_of_the_lists(self):
        for width, sentences in self.running.items():
            cache = self.caches[width]
            for slot, sentence in enumerate(sentences):
                self.check_source(cache, slot, sentence)
                for i, row in enumerate(sentence.rows):
                    self.check_row(cache, slot * width + i, row)

    @invariant()
    def memory_is_bounded(self):
        pool = self.pool
        assert pool.needed <= pool.allocated <= pool.max_bytes
        assert pool.figures.allocated <= 1.5 * pool.figures.needed + self.variant.spare_bytes
        assert pool.allocated == sum(b.capacity * b.position_bytes for b in pool.buffers)

    def teardown(self):
        for width in WIDTHS:
            self.clear(width)
        assert self.pool.needed == 0
        assert self.pool.allocated <= self.variant.spare_bytes
        self.idle()

    def needed_bytes(self, width, num_sentences, longest_row, longest_source):
        longest_row += self.variant.num_greedy_tokens - 1
        return self.variant.sizes.needed_bytes(width, num_sentences, longest_row, longest_source)

    def new_number(self):
        self.last_number += 4  # the numbers between are those of tensors and positions
        return self.last_number

    def step_once(self, width):
        sentences, cache = self.running[width], self.caches[width]
        if not sentences:
            return
        rows = [row for sentence in sentences for row in sentence.rows]
        tokens = np.array([self.new_number() for _ in rows])
        lengths = np.array([len(row.positions) for row in rows], np.int32)
        cache.step(len(sentences), StepInput(tokens, lengths, 1, [NO_TOKEN_BIAS]))
        figures = self.pool.figures
        assert self.pool.allocated <= 1.5 * self.pool.needed + self.variant.spare_bytes
        assert figures.needed <= self.pool.needed
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.positions += range(token, token + cache.num_step_tokens)
            row.vector += token
        self.drop(width, {i for i, s in enumerate(sentences) if is_at_its_limit(s)})

    def drop(self, width, slots):
        sentences, cache = self.running[width], self.caches[width]
        for slot in sorted(slots, reverse=True):
            last = len(sentences) - 1
            if slot != last:
                cache.move(last, slot, len(sentences[last].rows[0].positions))
                sentences[slot] = sentences[last]
            sentences.pop()
        if sentences:
            longest = max(len(row.positions) for s in sentences for row in s.rows)
            cache.keep(len(sentences), longest)
        else:
            self.release(width)

    def release(self, width):
        self.caches[width].release()
        assert self.pool.allocated <= 1.5 * self.pool.needed + self.variant.spare_bytes

    def copy_of(self, slot, rows, row, parent):
        both = zip(rows[row].positions, rows[parent].positions, strict=True)
        num_equal = next((i for i, (a, b) in enumerate(both) if a != b), 0)
        first = slot * len(rows)
        stop = len(rows[row].positions)
        return CacheCopy(first + row, first + parent, num_equal, stop)

    def check_source(self, cache, slot, sentence):
        if self.variant.has_prompts:
            return
        for i, tensor in enumerate(cache._cross.tensors):
            assert (tensor[slot, :, : sentence.num_source_tokens] == sentence.source + i).all()
            if self.variant.reads_padding:
                assert not tensor[slot, :, sentence.num_source_tokens :].any()

    def check_row(self, cache, number, row):
        if cache._past is not None:
            states = cache._past.tensors[:, number, :, : len(row.positions)]
            assert (states == np.array(row.positions, FLOAT)[:, None]).all()
        if cache._replaced is not None:
            assert (cache._vectors(cache._replaced)[:, number] == row.vector).all()


def is_at_its_limit(sentence: Sentence) -> bool:
    return len(sentence.rows[0].positions) >= sentence.longest_row


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_any_operations_leave_the_content_that_they_should_and_bounded_memory(variant: Variant):
    run_state_machine_as_test(
        partial(CacheMachine, variant),  # type: ignore[arg-type]
        settings=settings(deadline=None, stateful_step_count=40),
    )
