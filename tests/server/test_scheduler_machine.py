"""Any sequence of calls, cancellations, deadlines and failures of a model, on two workers."""

import logging

import numpy as np
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.errors import DeadlineExceeded, ModelFailed, QueueFull
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.fake_model import (
    FakeLanguageModel,
    FakeTranslationModel,
    RecordingObserver,
)
from tests.support.limits import translation_limits

MAX_ROWS = 8


class FailingModel(FakeTranslationModel):
    """Raises in the next step, or returns NaN, if it was told to."""

    fails = returns_nan = False

    def before_step(self):
        if self.fails:
            self.fails = False
            raise RuntimeError("broken weights")

    def log_probabilities(self, source, prefix):
        found = super().log_probabilities(source, prefix)
        return np.full(len(found), np.nan) if self.returns_nan else found


class FailingLanguageModel(FailingModel, FakeLanguageModel):
    """The same for prompts."""


def schedulers_of(model, clock, num_workers):
    limits = translation_limits(max_rows=MAX_ROWS, max_queued_texts=60, max_encode_tokens=12)
    workers: list[TranslationScheduler] = []
    for _ in range(num_workers):
        sibling = next(iter(workers), None)
        workers.append(
            TranslationScheduler("fake", model, limits, RecordingObserver(), clock, sibling)
        )
    return workers


def run(workers):
    rounds = 0
    while any(worker.has_work for worker in workers):
        for worker in workers:
            worker.advance(is_alone=True)
        rounds += 1
        assert rounds < 10_000, "the schedulers do not come to an end"


def alone(sources, options):
    """The translations of a call that is alone in a model."""
    workers = schedulers_of(FakeTranslationModel(), lambda: 0.0, 1)
    call = TranslateCall(sources, options)
    workers[0].submit(call)
    run(workers)
    return call.future.result()


def tokens_of(results):
    return [[h.token_ids for h in hypotheses] for hypotheses in results]


class SchedulerMachine(RuleBasedStateMachine):
    """Each call is answered exactly once, and rightly if it is answered with a result."""

    @initialize(
        num_greedy_tokens=st.sampled_from([1, 2]),
        new_model=st.sampled_from([FailingModel, FailingLanguageModel]),
    )
    def begin(self, num_greedy_tokens, new_model):
        logging.disable(logging.CRITICAL)  # the failures are intended
        self.now = 0.0
        self.model = new_model(num_greedy_tokens)
        self.workers = schedulers_of(self.model, lambda: self.now, 2)
        self.calls = []
        self.num_ends = {}

    @rule(
        sources=st.lists(
            st.lists(st.integers(3, 20), min_size=1, max_size=6).map(tuple), min_size=1, max_size=4
        ),
        beam_size=st.integers(1, 4),
        num_tokens=st.integers(1, 8),
        seconds=st.none() | st.integers(1, 4),
    )
    def submit(self, sources, beam_size, num_tokens, seconds):
        options = SearchOptions(num_tokens, beam_size=beam_size, num_hypotheses=beam_size)
        call = TranslateCall(sources, options, None if seconds is None else self.now + seconds)
        try:
            self.workers[0].submit(call)
        except QueueFull:
            return
        self.calls.append(call)
        self.num_ends[call] = 0
        call.future.add_done_callback(lambda _: self._count(call))

    @rule(worker=st.integers(0, 1), rounds=st.integers(1, 4))
    def advance(self, worker, rounds):
        for _ in range(rounds):
            self.workers[worker].advance(is_alone=True)

    @rule(number=st.integers(0, 99))
    def cancel(self, number):
        if self.calls:
            self.calls[number % len(self.calls)].future.cancel()

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def fail_next_step(self):
        self.model.fails = True

    @rule(worker=st.integers(0, 1))
    def return_nan_in_a_step(self, worker):
        self.model.returns_nan = True
        self.workers[worker].advance(is_alone=True)
        self.model.returns_nan = False

    @rule(worker=st.integers(0, 1))
    def release_memory_without_work(self, worker):
        if not self.workers[worker].num_active:
            self.workers[worker].release_memory()

    @invariant()
    def rows_are_within_their_limit(self):
        assert all(worker.num_active <= MAX_ROWS for worker in getattr(self, "workers", ()))

    def teardown(self):
        run(self.workers)
        logging.disable(logging.NOTSET)
        assert all(count == 1 for count in self.num_ends.values())
        for worker in self.workers:
            assert worker.num_active == worker.num_active_sentences == worker.num_waiting == 0
        for call in self.calls:
            if call.future.cancelled():
                continue
            if error := call.future.exception():
                assert isinstance(error, ModelFailed | DeadlineExceeded)
            else:
                expected = tokens_of(alone(call.sources, call.options))
                assert tokens_of(call.future.result()) == expected

    def _count(self, call):
        self.num_ends[call] += 1


TestScheduler = SchedulerMachine.TestCase
