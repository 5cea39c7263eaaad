"""The order in which the queue of a model offers the texts of several callers."""

import math
from collections import Counter

import pytest
from attendant_server.engine.admission import Admission
from attendant_server.engine.admission_queue import MAX_PAST_CALLERS, AdmissionQueue
from attendant_server.engine.caller_activity import CallerActivity
from attendant_server.engine.calls import Caller, SearchOptions, TranslateCall
from attendant_server.engine.encoder_calls import EmbedCall
from attendant_server.errors import QueueFull
from attendant_server.settings import Settings
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule


def new_queue(max_texts=1000):
    queue: AdmissionQueue[EmbedCall] = AdmissionQueue(Admission(max_texts, CallerActivity()))
    return queue


def put(queue, caller, lengths, deadline=None):
    call = EmbedCall([[1] * n for n in lengths], ("mean_pooled",), deadline)
    call.caller = caller if isinstance(caller, Caller) else Caller(caller)
    queue.put(call, lengths, 0.0)
    return call


def take(queue, num_texts=1, **options):
    """The next texts, one by one."""
    return [queue.take(0.0, lambda texts: [next(texts)], **options)[0][0] for _ in range(num_texts)]


def callers_of(texts):
    return "".join(text.call.caller.name for text in texts)


def test_a_newcomer_does_not_wait_for_the_texts_of_others():
    queue = new_queue()
    put(queue, "a", [5] * 100)
    take(queue, 50)
    put(queue, "b", [5] * 3)
    assert callers_of(take(queue, 6)) == "ababab"


def test_texts_are_offered_in_the_order_in_which_they_are_taken_one_by_one():
    for num_taken in range(12):
        queue, other = new_queue(), new_queue()
        for each in (queue, other):
            put(each, "a", [4, 1, 4])
            put(each, "b", [2] * 5)
            put(each, "a", [3] * 2)
            put(each, Caller("c", weight=2.0), [4] * 4)
            take(each, num_taken)
        offered = queue.take(0.0, list)[0]
        assert callers_of(offered) == callers_of(take(other, 14 - num_taken))


def test_calls_of_a_caller_take_turns():
    queue = new_queue()
    calls = [put(queue, "a", [5] * n) for n in (5, 1, 2)]
    taken = take(queue, 8)
    assert [calls.index(text.call) for text in taken] == [0, 1, 2, 0, 2, 0, 0, 0]
    assert [text.index for text in taken if text.call is calls[0]] == [0, 1, 2, 3, 4]


def test_a_beam_counts_for_each_of_its_rows():
    queue: AdmissionQueue[TranslateCall] = AdmissionQueue(Admission(100, CallerActivity()))
    for name, beam_size in (("a", 4), ("b", 1)):
        call = TranslateCall([(5, 6)] * 20, SearchOptions(9, beam_size))
        call.caller = Caller(name)
        queue.put(call, [2] * 20, 0.0)
    assert Counter(callers_of(take(queue, 20))) == {"a": 4, "b": 16}


def test_a_caller_that_leaves_and_returns_gains_nothing():
    queue = new_queue()
    put(queue, "a", [1] * 100)
    put(queue, "b", [10])
    assert "b" in callers_of(take(queue, 2))
    put(queue, "b", [10])
    assert callers_of(take(queue, 12)).index("b") in (9, 10)


def test_nobody_pays_for_texts_that_were_taken_when_nobody_else_waited():
    queue = new_queue()
    put(queue, "a", [10] * 50)
    take(queue, 50)
    put(queue, "b", [1] * 20)
    put(queue, "a", [1] * 20)
    assert Counter(callers_of(take(queue, 10))) == {"a": 5, "b": 5}


def test_the_callers_that_are_remembered_are_bounded():
    queue = new_queue(max_texts=10_000)
    put(queue, "a", [1] * 10)
    for n in range(2 * MAX_PAST_CALLERS):
        put(queue, f"caller {n}", [5])
        queue.take(0.0, lambda texts: [text for text in texts if text.num_tokens == 5])
    assert len(queue._past_callers) <= MAX_PAST_CALLERS
    queue.take_all(0.0)
    assert not queue._past_callers


def test_texts_of_heavy_and_of_light_callers_can_be_taken_apart():
    queue = new_queue()
    put(queue, "a", [5] * 17)
    put(queue, "b", [5] * 16)
    put(queue, Caller("c", is_bulk=True), [5])
    assert callers_of(take(queue, 16, is_light=True)) == "b" * 16
    assert list(queue.take(0.0, list, is_light=True)[0]) == []
    assert Counter(callers_of(queue.take(0.0, list, is_light=False)[0])) == {"a": 17, "c": 1}


def test_a_caller_is_light_again_when_its_calls_have_ended():
    queue = new_queue()
    many, few = put(queue, "a", [5] * 20), put(queue, "a", [5] * 2)
    assert not queue.take(0.0, list, is_light=True)[0]
    many.future.cancel()
    assert [text.call for text in queue.take(0.0, list, is_light=True)[0]] == [few, few]


def test_a_caller_leaves_others_a_quarter_of_the_places():
    queue = new_queue(max_texts=100)
    for _ in range(75):
        put(queue, "a", [5])
    with pytest.raises(QueueFull) as refusal:
        put(queue, "a", [5])
    assert str(refusal.value) == (
        "75 texts of this caller are waiting and 1 more would exceed its limit of 75: three "
        "quarters of the 100 places that other callers leave free, of 100"
    )
    put(queue, "b", [5] * 19)
    with pytest.raises(QueueFull, match="0 texts of this caller .* of the 6 places"):
        put(queue, "c", [5] * 6)
    put(queue, "c", [5] * 5)


def test_six_callers_with_256_texts_fit_the_default_queue():
    queue = new_queue(max_texts=Settings().max_queued_texts)
    for n in range(6):
        put(queue, str(n), [5] * 256)


def test_a_caller_who_is_alone_may_fill_the_queue_with_one_call():
    queue = new_queue(max_texts=100)
    put(queue, "a", [5] * 100)
    with pytest.raises(QueueFull, match="100 texts are waiting and 1 more"):
        put(queue, "b", [5])


def test_a_refused_call_leaves_no_trace():
    queue = new_queue(max_texts=10)
    put(queue, "a", [5] * 8)
    with pytest.raises(QueueFull):
        put(queue, Caller("b", is_bulk=True), [5] * 3)
    assert len(queue) == 8
    assert list(queue._callers) == [Caller("a")]
    assert list(queue._admission._loads) == [Caller("a")]


def test_new_callers_that_keep_coming_do_not_starve_a_caller():
    queue = new_queue(max_texts=10_000)
    put(queue, "a", [5] * 100)
    taken = []
    for n in range(150):
        put(queue, str(n), [5])
        taken += take(queue)
    assert callers_of(taken).count("a") >= 10


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)
WEIGHTS = st.sampled_from([0.25, 1.0, 2.0])


@given(st.lists(st.tuples(LENGTHS, WEIGHTS), min_size=2, max_size=5))
def test_backlogged_callers_are_served_by_their_weights_within_a_text(loads):
    queue = new_queue()
    callers = [Caller(str(i), weight=weight) for i, (_, weight) in enumerate(loads)]
    for caller, (lengths, _) in zip(callers, loads, strict=True):
        put(queue, caller, lengths)
    served = dict.fromkeys(callers, 0.0)
    left = {caller: len(lengths) for caller, (lengths, _) in zip(callers, loads, strict=True)}
    largest = {caller: max(lengths) for caller, (lengths, _) in zip(callers, loads, strict=True)}
    while all(left.values()):
        (text,) = take(queue)
        caller = text.call.caller
        left[caller] -= 1
        served[caller] += text.num_tokens / caller.weight
        bound = [largest[each] / each.weight for each in callers]
        for i, one in enumerate(callers):
            for j, other in enumerate(callers):
                assert abs(served[one] - served[other]) <= bound[i] + bound[j] + 1e-9


class QueueMachine(RuleBasedStateMachine):
    """Any interleaving of calls that come, end and expire with workers that take texts."""

    def __init__(self):
        super().__init__()
        self.queue, self.now = new_queue(max_texts=60), 0.0
        self.waiting: dict[tuple[EmbedCall, int], None] = {}
        self.calls: list[EmbedCall] = []

    @rule(
        name=st.sampled_from("abcd"),
        is_bulk=st.booleans(),
        lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20),
        seconds_left=st.sampled_from([1.0, 3.0, math.inf]),
    )
    def put(self, name, is_bulk, lengths, seconds_left):
        call = EmbedCall([[1] * n for n in lengths], ("cls_pooled",), self.now + seconds_left)
        call.caller = Caller(name, is_bulk)
        try:
            self.queue.put(call, lengths, self.now)
        except QueueFull:
            return
        self.calls.append(call)
        self.waiting |= {(call, i): None for i in range(len(lengths))}

    @rule(
        picks=st.lists(st.booleans(), max_size=12),
        is_light=st.sampled_from([None, True, False]),
    )
    def take(self, picks, is_light):
        def choose(texts):
            window = [text for text, _ in zip(texts, picks, strict=False)]
            return [text for text, picked in zip(window, picks, strict=False) if picked]

        chosen, expired = self.queue.take(self.now, choose, is_light)
        for text in [*chosen, *expired]:
            assert text.call.is_expired(self.now) == (text in expired)
            del self.waiting[text.call, text.index]  # fails for a lost, doubled or ended text
        self.queue._admission.start(text.call for text in [*chosen, *expired])

    @rule(data=st.data())
    def end(self, data):
        if self.calls:
            call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
            call.future.cancel()
            self.waiting = {each: None for each in self.waiting if each[0] is not call}

    @rule()
    def wait(self):
        self.now += 1.0

    @rule()
    def empty(self):
        """Everything that waits is offered."""
        taken = self.queue.take_all(self.now)
        assert {(text.call, text.index) for text in taken} == set(self.waiting)
        assert len(taken) == len(self.waiting)
        self.queue._admission.start(text.call for text in taken)
        self.waiting = {}

    @invariant()
    def counts_are_right(self):
        assert len(self.queue) == len(self.waiting)
        assert self.queue._admission.num_waiting == len(self.waiting)
        queues = self.queue._callers.values()
        assert self.queue._work == sum(queue.work for queue in queues)
        for queue in queues:
            assert queue.work == sum(t.work for texts in queue.calls.values() for t in texts) > 0
        assert len(self.queue._past_callers) <= len("abcd") * 2
        loads = self.queue._admission._loads
        assert sum(load.num_texts for load in loads.values()) == sum(
            call.num_texts for call in self.calls
        )


TestQueueMachine = QueueMachine.TestCase
