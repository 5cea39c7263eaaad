"""Calls that would wait too long are refused at once; simulated time."""

import random
from collections import Counter

import pytest
from attendant_server.engine.admission_queue import AdmissionQueue
from attendant_server.engine.work_flow import MEMORY_SECONDS, LaneFlows, Rates, WorkFlow
from attendant_server.errors import WaitTooLong
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.simulation import (
    Arrival,
    SimulatedClock,
    embedding,
    simulate,
    slow_embedder,
)

SECONDS_PER_TOKEN = 0.01


@pytest.fixture
def clock():
    return SimulatedClock()


@pytest.fixture
def scheduler(clock):
    return slow_embedder(clock, SECONDS_PER_TOKEN)[0]


def random_load(num_seconds, calls_per_second, num_callers, seconds=60.0, max_texts=3):
    """Calls at random times; each text has 15.5 tokens on average, thus 0.155 seconds of work."""
    rng, at, arrivals = random.Random(1), 0.0, []
    while at < num_seconds:
        at += rng.expovariate(calls_per_second)
        lengths = [rng.randint(1, 30) for _ in range(rng.randint(1, max_texts))]
        arrivals.append(embedding(at, seconds, str(rng.randrange(num_callers)), lengths))
    return arrivals


def ends(arrivals):
    return Counter(arrival.end for arrival in arrivals)


def without_estimates(monkeypatch):
    monkeypatch.setattr(AdmissionQueue, "_check_wait", lambda *_: None)


@pytest.mark.parametrize("num_callers", [1, 8, 100])
@pytest.mark.parametrize("seconds", [60.0, 5.0])
def test_overload_is_refused_and_not_timed_out(monkeypatch, clock, scheduler, num_callers, seconds):
    found = ends(simulate(scheduler, clock, random_load(300, 6.0, num_callers, seconds)))
    assert found["WaitTooLong"] > 8 * found["expired"]
    without_estimates(monkeypatch)
    clock = SimulatedClock()
    scheduler, _ = slow_embedder(clock, SECONDS_PER_TOKEN)
    before = ends(simulate(scheduler, clock, random_load(300, 6.0, num_callers, seconds)))
    assert before["expired"] > 5 * found["expired"]
    assert found["answered"] > before["answered"]


@pytest.mark.parametrize("num_callers", [1, 8, 100])
def test_nothing_is_refused_at_four_fifths_of_the_capacity(clock, scheduler, num_callers):
    arrivals = simulate(scheduler, clock, random_load(600, 2.5, num_callers))
    assert ends(arrivals) == {"answered": len(arrivals)}


BURSTS = st.tuples(
    st.floats(0, 30),  # seconds before the burst
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.booleans(),
            st.lists(st.integers(1, 30), min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=40,
    ),
    st.floats(0, 2),  # seconds of a stall
)


@settings(max_examples=50, deadline=None)
@given(st.lists(BURSTS, min_size=1, max_size=6))
def test_bursts_that_end_soon_are_never_refused(bursts):
    clock = SimulatedClock()
    scheduler, model = slow_embedder(clock, 0.002)
    for gap, calls, stall in bursts:
        clock.now += gap
        model.stalls = [(clock.now, stall)]
        arrivals = [
            embedding(clock.now + 0.02 * n, 20.0, caller, lengths, is_bulk)
            for n, (caller, is_bulk, lengths) in enumerate(calls)
        ]
        arrivals = simulate(scheduler, clock, arrivals)
        assert ends(arrivals) == {"answered": len(arrivals)}


def test_a_slow_model_that_nobody_has_used_yet_refuses_nothing(clock):
    scheduler, _ = slow_embedder(clock, 1.0)
    arrivals = [embedding(0.01 * n, 60.0, str(n % 5), [20]) for n in range(100)]
    assert ends(simulate(scheduler, clock, arrivals))["WaitTooLong"] == 0


def flooded(scheduler, clock, num_seconds=100):
    """Let calls wait for about 30 seconds, and for longer if they are admitted."""
    arrivals = random_load(num_seconds, 6.0, 1, seconds=40.0)
    coming = iter(arrivals)
    for arrival in coming:
        if arrival.at > clock.now:
            while scheduler.has_work and clock.now < arrival.at:
                scheduler.advance(is_alone=True)
            clock.now = max(clock.now, arrival.at)
        try:
            scheduler.submit(arrival.call)
        except WaitTooLong as error:
            arrival.refusal = error
    return arrivals


def refusal_of(scheduler, arrival):
    try:
        scheduler.submit(arrival.call)
    except WaitTooLong as error:
        return error
    return None


def test_the_refusal_names_the_wait_and_its_limit(clock, scheduler):
    flooded(scheduler, clock)
    error = refusal_of(scheduler, embedding(clock.now, 4.0, "0", [20]))
    assert error is not None
    wait = float(str(error).split()[4])
    assert wait > 3.0
    assert str(error) == (
        f"the estimated wait of {wait:.3g} seconds is too long: at most 3 of the 4 seconds until "
        "the call's deadline, which max_request_seconds limits"
    )
    assert error.retry_after_seconds == pytest.approx(wait - 3.0, abs=0.06)


def test_a_refused_call_is_soon_admitted_if_it_comes_again_when_it_was_told_to(clock, scheduler):
    flooded(scheduler, clock)
    refused = refusal_of(scheduler, embedding(clock.now, 10.0, "0", [20]))
    assert refused is not None
    num_retries = 0
    while refused is not None:
        again = clock.now + refused.retry_after_seconds
        while clock.now < again:
            scheduler.advance(is_alone=True)
        refused = refusal_of(scheduler, embedding(clock.now, 10.0, "0", [20]))
        num_retries += 1
    assert num_retries <= 3


def test_another_caller_is_not_refused_because_of_a_flood(clock, scheduler):
    flooded(scheduler, clock)
    assert refusal_of(scheduler, embedding(clock.now, 4.0, "0", [20])) is not None
    quiet = embedding(clock.now, 4.0, "quiet", [20])
    assert ends(simulate(scheduler, clock, [quiet])) == {"answered": 1}


def test_light_callers_are_answered_beside_floods_that_are_refused(clock, scheduler):
    def bulk(at, name):
        return embedding(at, 60.0, name, [20] * 50, is_bulk=True)  # 10 seconds

    def again(ended: Arrival) -> Arrival | None:
        at = clock.now + (ended.refusal.retry_after_seconds if ended.refusal else 0.1)
        return bulk(at, ended.call.caller.name) if ended.call.caller.is_bulk and at < 600 else None

    floods = [bulk(0.01 * n, f"flood {n % 4}") for n in range(12)]
    quiet = [embedding(float(at), 5.0, "quiet", [20, 10]) for at in range(1, 600)]
    calls = simulate(scheduler, clock, floods + quiet, again)
    assert ends(each for each in calls if each.call.caller.name == "quiet") == {"answered": 599}
    found = ends(each for each in calls if each.call.caller.is_bulk and each.at > 60)
    assert found["WaitTooLong"] > found["expired"]
    assert found["answered"] > found["expired"]


def test_a_later_part_of_a_long_call_is_admitted_however_long_it_waits(clock, scheduler):
    flooded(scheduler, clock)
    part = embedding(clock.now, 4.0, "0", [20])
    part.call.may_wait = True
    assert refusal_of(scheduler, part) is None


def test_a_call_that_expired_before_is_not_told_to_retry(clock, scheduler):
    flooded(scheduler, clock)
    assert refusal_of(scheduler, embedding(clock.now - 1.0, 0.5, "0", [20])) is None


def test_rates_are_forgotten_after_a_time_without_work(clock, scheduler):
    flooded(scheduler, clock)
    simulate(scheduler, clock, [])
    burst = [embedding(clock.now, 4.0, "0", [20]) for _ in range(40)]
    assert any(refusal_of(scheduler, each) for each in burst)
    simulate(scheduler, clock, [])
    clock.now += MEMORY_SECONDS + 0.1
    burst = [embedding(clock.now, 4.0, "0", [20]) for _ in range(40)]
    assert not any(refusal_of(scheduler, each) for each in burst)


def test_large_calls_of_several_callers_that_are_too_much_together_end_one_by_one(
    monkeypatch, clock
):
    """Without estimates, all of them take part of the time, and none ends in time."""

    def again(ended: Arrival) -> Arrival | None:
        wait = ended.refusal.retry_after_seconds if ended.refusal else 1.0
        at = clock.now + wait
        return large(at, ended.call.caller.name) if at < 1000 else None

    def large(at, caller):
        return embedding(at, 60.0, caller, [20] * 200)  # 40 seconds

    scheduler, _ = slow_embedder(clock, SECONDS_PER_TOKEN)
    calls = simulate(scheduler, clock, [large(0.1 * n, str(n)) for n in range(3)], again)
    assert ends(calls)["answered"] >= 10
    without_estimates(monkeypatch)
    clock.now = 0.0
    scheduler, _ = slow_embedder(clock, SECONDS_PER_TOKEN)
    calls = simulate(scheduler, clock, [large(0.1 * n, str(n)) for n in range(3)], again)
    assert ends(calls)["answered"] == 0


def known_rates(flow, now):
    rates = flow.rates(now)
    assert rates is not None
    return rates


def fed(flow, seconds, per_second=2, start=0.0, work=10):
    """Work comes and leaves evenly; returns the end."""
    for n in range(int(seconds * per_second) + 1):
        now = start + n / per_second
        flow.note_coming(work, False, now)
        flow.note_leaving(work, now)
    return now


def test_rates_are_unknown_until_work_has_waited_for_five_samples():
    flow = WorkFlow()
    fed(flow, 4.9)
    assert flow.rates(5.0) is None
    flow.note_leaving(10, 5.0)
    assert known_rates(flow, 5.0).leaving == 20.0


def test_a_stall_and_a_burst_do_not_change_the_rate_at_which_work_leaves():
    flow = WorkFlow()
    now = fed(flow, 10)
    for seconds, work in ((8, 10), (1, 1000)):
        now += seconds
        flow.note_leaving(work, now)
        assert known_rates(flow, now).leaving == 20.0


def test_time_without_work_is_in_no_sample():
    flow, now = WorkFlow(), 0.0
    for _ in range(8):
        flow.note_coming(10, True, now + 5.0)
        now = fed(flow, 2.0, start=now + 5.0)
    assert flow.rates(now) == Rates(20.0, load=0.0)  # it is unknown whether more work comes


def test_the_rate_at_which_work_comes_is_that_of_the_last_half_minute():
    flow = WorkFlow()
    now = fed(flow, 300)
    assert known_rates(flow, now).load > 0.95
    for n in range(60):
        flow.note_leaving(10, now + n)
    assert known_rates(flow, now + 60).load < 0.4


def test_rates_are_unknown_again_after_some_time():
    flow = WorkFlow()
    now = fed(flow, 10)
    assert flow.rates(now + MEMORY_SECONDS) is not None
    assert flow.rates(now + MEMORY_SECONDS + 1) is None
    flow.note_leaving(10, now + MEMORY_SECONDS + 1)
    assert flow.rates(now + MEMORY_SECONDS + 1) is None


def test_a_lane_without_samples_has_the_rate_of_the_fastest_flow():
    flows = LaneFlows()
    assert flows.rates(False, 0.0) is None
    now = fed(flows.of(True), 10)
    fed(flows.of(None), 10, work=20)
    assert flows.rates(False, now) == Rates(40.0, load=0.0)
    assert flows.rates(True, now) == flows.of(True).rates(now) != flows.rates(None, now)
