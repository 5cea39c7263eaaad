"""Any sequence of operations on a model's queue of texts, against a simple model of it."""

from itertools import islice
from math import ceil

from attendant_server.engine.admission import SHARE_OF_FREE_PLACES, Admission
from attendant_server.engine.admission_queue import AdmissionQueue
from attendant_server.engine.caller_activity import CallerActivity
from attendant_server.engine.calls import Caller, SearchOptions, TranslateCall
from attendant_server.errors import DeadlineExceeded, ModelFailed, QueueFull
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

MAX_TEXTS = 40
CALLERS = [Caller("a"), Caller("b", weight=4.0), Caller("c", weight=0.25), Caller("d", True)]
callers, numbers = st.sampled_from(CALLERS), st.integers(0, 100)


class QueueMachine(RuleBasedStateMachine):
    """Calls are queued, taken, started, answered, cancelled and expired in any order.

    ``queued`` and ``waiting`` hold the indices of the texts of each call that is not over.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.activity = CallerActivity()
        self.admission = Admission(MAX_TEXTS, self.activity)
        self.queue: AdmissionQueue[TranslateCall] = AdmissionQueue(self.admission)
        self.queued: dict[TranslateCall, list[int]] = {}
        self.waiting: dict[TranslateCall, set[int]] = {}
        self.taken: list[tuple[TranslateCall, int]] = []

    @rule(
        caller=callers,
        num_texts=st.integers(1, 20),
        width=st.integers(1, 4),
        seconds=st.none() | st.integers(1, 5),
    )
    def put(self, caller, num_texts, width, seconds):
        deadline = None if seconds is None else self.now + seconds
        sources = [(i + 3, 2) for i in range(num_texts)]
        call = TranslateCall(sources, SearchOptions(5, beam_size=width), deadline)
        call.caller = caller
        own = sum(len(texts) for c, texts in self.waiting.items() if c.caller == caller)
        total = sum(map(len, self.waiting.values()))
        part = ceil(SHARE_OF_FREE_PLACES * (MAX_TEXTS - (total - own)))
        fits = total + num_texts <= MAX_TEXTS and (not total or own + num_texts <= part)
        try:
            self.queue.put(call, range(1, num_texts + 1), self.now)
        except QueueFull:
            assert not fits
        else:
            assert fits
            self.queued[call] = list(range(num_texts))
            self.waiting[call] = set(range(num_texts))

    @rule(num_texts=st.integers(0, 12), is_light=st.sampled_from([None, True, False]))
    def take(self, num_texts, is_light):
        heavy = {call.caller for call in self.queued if self._is_heavy(call.caller)}
        chosen, expired = self.queue.take(
            self.now, lambda texts: list(islice(texts, num_texts)), is_light
        )
        for text in chosen:
            assert not text.call.is_abandoned(self.now)
            assert is_light is None or (text.call.caller in heavy) is not is_light
        offered = [c for c in self.queued if is_light in (None, c.caller not in heavy)]
        if not expired:
            num_left = sum(len(self.queued[c]) for c in offered if self.queued[c])
            assert len(chosen) == min(num_texts, num_left)
        self._remove(chosen, expired)

    @rule()
    def take_all(self):
        chosen = self.queue.take_all(self.now)
        expired = [text for text in chosen if text.call.is_expired(self.now)]
        self._remove([text for text in chosen if text not in expired], expired)
        assert not len(self.queue)

    @rule(count=st.integers(1, 8))
    def start(self, count):
        started, self.taken = self.taken[:count], self.taken[count:]
        self.admission.start(call for call, _ in started)
        for call, index in started:
            if call in self.waiting:
                self.waiting[call].discard(index)
                if not call.is_over():
                    call.put(index, [], self.now)
                if call.is_over():
                    self._forget(call)

    @rule(number=numbers, is_failed=st.booleans())
    def end(self, number, is_failed):
        if self.waiting:
            call = list(self.waiting)[number % len(self.waiting)]
            if is_failed:
                call.fail(ModelFailed("it failed"))
            else:
                assert call.future.cancel()
            self._forget(call)

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def counts_are_those_of_the_model(self):
        assert len(self.queue) == sum(map(len, self.queued.values()))
        assert self.admission.num_waiting == sum(map(len, self.waiting.values())) <= MAX_TEXTS

    def teardown(self):
        for call in list(self.waiting):
            call.future.cancel()
        assert self.admission.num_waiting == len(self.queue) == 0
        assert not self.admission._loads
        assert self.activity._num_callers == [0, 0]

    def _remove(self, chosen, expired):
        for text in [*chosen, *expired]:
            self.queued[text.call].remove(text.index)  # fails for a text that is taken twice
        for text in chosen:
            self.taken.append((text.call, text.index))
        for call in {text.call: None for text in expired}:
            assert call.is_expired(self.now)
            call.fail(DeadlineExceeded("it is too late"))
            self._forget(call)

    def _forget(self, call):
        self.waiting.pop(call, None)
        self.queued.pop(call, None)

    def _is_heavy(self, caller):
        return self.admission._loads[caller].is_heavy


TestQueue = QueueMachine.TestCase
