"""Light callers beside heavy ones: who goes first, and what heavy callers still get."""

import pytest
from attendant_server.engine.calls import Caller, SearchOptions, TranslateCall
from attendant_server.engine.pair_calls import ScoreCall
from attendant_server.engine.translation_scheduler import TranslationScheduler

from tests.support.fake_model import (
    EOS,
    FakeCache,
    FakeTranslationModel,
    RecordingObserver,
)
from tests.support.limits import translation_limits

FLOOD, QUIET = Caller("flood"), Caller("quiet")
BULK = Caller("bulk", is_bulk=True)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class TimedModel(FakeTranslationModel):
    """Each run takes a millisecond, and each token of a batch of sources or pairs another one."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.runs: list[str] = []
        self.steps_of_caches: list[tuple[FakeCache, int]] = []

    def encode(self, sources):
        self.take_time("encode", sources)
        return super().encode(sources)

    def score(self, pairs):
        self.take_time("score", [source for source, _ in pairs])
        return super().score(pairs)

    def before_step(self):
        self.clock.now += 0.001
        self.runs.append("step")

    def take_time(self, run, texts):
        self.clock.now += 0.001 + 0.001 * len(texts) * max(map(len, texts))
        self.runs.append(run)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def model(clock):
    return TimedModel(clock)


@pytest.fixture
def observer():
    return RecordingObserver()


@pytest.fixture
def scheduler(model, observer, clock):
    return new_scheduler(model, observer, clock)


def new_scheduler(model, observer, clock, sibling=None, **limits):
    chosen = {"max_rows": 16, "max_sentences": 16, "max_encode_tokens": 64} | limits
    all_limits = translation_limits(**chosen)
    return TranslationScheduler("fake", model, all_limits, observer, clock, sibling)


def submit(scheduler, caller, num_texts=1, num_tokens=8, beam_size=1):
    options = SearchOptions(num_tokens, beam_size, min_output_tokens=num_tokens)
    call = TranslateCall([(5, 6, 7)] * num_texts, options)
    call.caller = caller
    scheduler.submit(call)
    return call


def submit_pairs(scheduler, caller, num_pairs=1):
    call = ScoreCall([((5, 6, 7), (8, EOS))] * num_pairs)
    call.caller = caller
    scheduler.submit(call)
    return call


def answered(scheduler, call, max_rounds=10_000):
    """Advance until the call is answered; returns the number of rounds."""
    for num_rounds in range(max_rounds):
        if call.future.done():
            assert call.future.result()
            return num_rounds
        scheduler.advance(is_alone=True)
    raise AssertionError("the call is not answered")


def lanes(scheduler):
    """The running sentences of the heavy and of the light lane."""
    batches = scheduler._slots.batches.items()
    return [sum(len(b.sentences) for key, b in batches if key[2] is lane) for lane in (False, True)]


def test_a_light_text_beside_a_flood_takes_little_more_time_than_alone(scheduler, clock):
    started = clock.now
    answered(scheduler, submit(scheduler, QUIET))
    alone = clock.now - started
    floods = [submit(scheduler, Caller(f"flood {n}"), 200) for n in range(4)]
    for _ in range(50):
        scheduler.advance(is_alone=True)
    for _ in range(20):
        started = clock.now
        answered(scheduler, submit(scheduler, QUIET))
        assert clock.now - started < 2 * alone + 0.01  # a heavy run takes at most 10 ms
        for _ in range(5):
            scheduler.advance(is_alone=True)
    assert not any(call.future.done() for call in floods)


def test_a_light_pair_beside_a_flood_is_scored_first(scheduler, clock, model):
    floods = [submit_pairs(scheduler, Caller(f"flood {n}"), 200) for n in range(4)]
    for _ in range(3):
        scheduler.advance(is_alone=True)
    assert answered(scheduler, submit_pairs(scheduler, QUIET)) == 1
    assert not any(call.future.done() for call in floods)


def test_the_first_of_several_workers_scores_no_pairs_of_a_flood_beside_a_light_caller(
    scheduler, observer, clock, model
):
    spared, other = scheduler, new_scheduler(model, observer, clock, scheduler)
    flood = submit_pairs(spared, FLOOD, 300)
    assert spared.has_work

    quiet = submit_pairs(spared, QUIET)
    assert spared.num_to_wake(1) == 2  # a single pair could wake the spared worker only
    assert answered(spared, quiet) == 1
    assert not spared.has_work
    spared.advance(is_alone=True)
    assert model.runs == ["score"]
    assert other.has_work

    translation = submit(spared, FLOOD, num_texts=40)  # steps are short
    while spared.has_work:
        spared.advance(is_alone=True)
    assert translation.future.done()
    assert not flood.future.done()
    assert answered(other, flood)


def test_heavy_runs_are_short_as_soon_as_a_light_caller_is_there(scheduler, model):
    submit_pairs(scheduler, FLOOD, 300)
    for _ in range(3):
        scheduler.advance(is_alone=True)
    assert {report.num_texts for report in scheduler._observer.batches} == {21}
    answered(scheduler, submit_pairs(scheduler, QUIET))
    scheduler._observer.batches.clear()
    for _ in range(3):
        scheduler.advance(is_alone=True)
    assert {report.num_texts for report in scheduler._observer.batches} == {3}


def test_heavy_callers_get_a_fifth_of_the_time_while_light_ones_always_run(scheduler, clock):
    submit(scheduler, FLOOD, 600, num_tokens=50)
    light = [submit(scheduler, Caller(f"quiet {n}"), num_tokens=30) for n in range(8)]
    spent = {False: 0.0, True: 0.0}

    def timed(run):
        def measured(is_light):
            started = clock.now
            has_run = run(is_light)
            spent[is_light] += clock.now - started
            return has_run

        return measured

    scheduler._turns._runs = list(map(timed, scheduler._turns._runs))
    for _ in range(600):
        light = [
            submit(scheduler, each.caller, num_tokens=30) if each.future.done() else each
            for each in light
        ]
        scheduler.advance(is_alone=True)
    assert spent[False] / sum(spent.values()) == pytest.approx(0.2, abs=0.03)


def test_one_caller_alone_never_has_lanes(scheduler, clock, model):
    for num_texts in (1, 200, 3, 1, 17):
        submit(scheduler, FLOOD, num_texts)
        scheduler.advance(is_alone=True)
        clock.now += 1.0
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
        assert lanes(scheduler)[True] == 0
    assert max(num_slots for _, num_slots in model.steps) == 16
    assert not scheduler._admission.activity.has_lanes(clock.now)


def test_floods_without_a_light_caller_have_no_lanes_and_use_all_slots(scheduler, clock):
    for n in range(4):
        submit(scheduler, Caller(f"flood {n}"), 100)
    for _ in range(20):
        scheduler.advance(is_alone=True)
    assert lanes(scheduler) == [16, 0]
    assert not scheduler._admission.activity.has_lanes(clock.now)


def test_many_light_callers_have_no_lanes(scheduler, clock):
    for n in range(40):
        submit(scheduler, Caller(str(n)))
        scheduler.advance(is_alone=True)
    assert not scheduler._admission.activity.has_lanes(clock.now)
    assert lanes(scheduler)[True] == 0


def test_lanes_end_after_some_time_without_a_light_caller(scheduler, clock):
    submit(scheduler, FLOOD, 500, num_tokens=1000)
    submit(scheduler, QUIET)
    activity = scheduler._admission.activity
    assert activity.has_lanes(clock.now)
    clock.now += 11.0
    assert not activity.has_lanes(clock.now)


def test_a_bulk_call_of_one_text_lets_others_go_first(scheduler):
    bulk = [submit(scheduler, BULK, num_tokens=2) for _ in range(10)]
    answered(scheduler, submit(scheduler, QUIET, num_tokens=2))
    assert not any(call.future.done() for call in bulk)


@pytest.mark.parametrize(("max_sentences", "reserved"), [(2, 1), (7, 1), (16, 2), (32, 4)])
def test_heavy_texts_leave_slots_for_light_ones(model, observer, clock, max_sentences, reserved):
    scheduler = new_scheduler(model, observer, clock, max_rows=64, max_sentences=max_sentences)
    submit(scheduler, QUIET)
    submit(scheduler, FLOOD, 200, num_tokens=1000)
    answered(scheduler, submit(scheduler, QUIET))
    for _ in range(100):
        scheduler.advance(is_alone=True)
    assert lanes(scheduler) == [max_sentences - reserved, 0]
    for n in range(40):
        submit(scheduler, Caller(str(n)), num_tokens=1000)
    for _ in range(100):
        scheduler.advance(is_alone=True)
    assert lanes(scheduler) == [max_sentences - reserved, reserved]


def test_light_texts_leave_slots_for_heavy_ones(scheduler):
    for n in range(40):
        submit(scheduler, Caller(str(n)), num_tokens=1000)
    submit(scheduler, BULK, 10, num_tokens=1000)
    for _ in range(300):
        scheduler.advance(is_alone=True)
    assert lanes(scheduler) == [2, 14]


@pytest.mark.parametrize("limits", [{}, {"max_sentences": 1}, {"max_cache_bytes": 200}])
@pytest.mark.parametrize("width", [1, 8, 16])
def test_wide_searches_of_both_kinds_end_though_the_other_kind_keeps_coming(
    model, observer, clock, limits, width
):
    scheduler = new_scheduler(model, observer, clock, **limits)
    for heavy, light in ((width, 1), (1, width), (width, width)):
        flood = submit(scheduler, FLOOD, 20, num_tokens=6, beam_size=heavy)
        for n in range(5000):
            if flood.future.done():
                break
            if scheduler.num_waiting < 60:
                submit(scheduler, Caller(str(n % 50)), num_tokens=6, beam_size=light)
            scheduler.advance(is_alone=True)
            assert scheduler.num_active <= 16
        assert flood.future.done()
        while scheduler.has_work:
            scheduler.advance(is_alone=True)


def test_lanes_change_no_answer(model, observer, clock):
    def answers(callers):
        scheduler = new_scheduler(model, observer, clock)
        calls = []
        for n in range(60):
            calls.append(TranslateCall([(5, n % 9 + 3)], SearchOptions(n % 7 + 2, n % 4 + 1)))
            calls[-1].caller = callers[n % len(callers)]
            scheduler.submit(calls[-1])
            scheduler.advance(is_alone=True)
        while scheduler.has_work:
            scheduler.advance(is_alone=True)
        return [call.future.result() for call in calls]

    assert answers([QUIET, BULK, Caller("other")]) == answers([QUIET])


def test_texts_that_wait_in_the_light_lane_go_on_when_lanes_end(scheduler, clock):
    submit(scheduler, FLOOD, 40, num_tokens=30)
    calls = [submit(scheduler, Caller(str(n)), num_tokens=30) for n in range(40)]
    for _ in range(40):
        scheduler.advance(is_alone=True)
    assert lanes(scheduler)[True]
    clock.now += 100.0
    for call in calls:
        answered(scheduler, call)


def test_a_caller_who_was_light_before_it_became_heavy_has_no_lanes(scheduler, clock):
    # A connection of many concurrent calls follows another one.
    for caller in (Caller("first"), Caller("second")):
        calls = [submit(scheduler, caller) for _ in range(40)]
        while scheduler.has_work:
            scheduler.advance(is_alone=True)
            clock.now += 0.01
            assert not scheduler._admission.activity.has_lanes(clock.now)
        assert all(call.future.result() for call in calls)


def test_heavy_runs_stay_as_long_though_their_threads_wait_for_processors(
    model, observer, clock, monkeypatch
):
    processor = Clock()
    take_time = model.take_time

    def take_time_and_wait(run, texts):
        before = clock.now
        take_time(run, texts)
        processor.now += clock.now - before
        clock.now += 0.05

    monkeypatch.setattr(model, "take_time", take_time_and_wait)
    scheduler = new_scheduler(model, observer, clock, run_clock=processor)
    submit(scheduler, FLOOD, 200)
    submit(scheduler, QUIET)
    for _ in range(60):
        scheduler.advance(is_alone=True)
    heavy = [batch.num_texts for batch in observer.batches][2:]
    assert heavy
    assert set(heavy) == {2}  # 7 ms each; three texts would take 10 ms
