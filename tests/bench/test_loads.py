import asyncio
import time

import pytest

from bench.loads import LoadResult, Refused, closed_loop, in_calls, in_turn, poisson

FAST = 1e6
"""A rate so high that all calls are due at once."""


async def count_characters(text: str) -> int:
    return len(text)


def test_a_closed_loop_makes_every_call_once_and_adds_up_the_outputs():
    result = asyncio.run(closed_loop(count_characters, ["a", "bb", "ccc"], concurrency=2))

    assert result.num_texts == len(result.latencies) == 3
    assert result.num_outputs == 6
    assert result.texts_per_second == pytest.approx(3 / result.seconds)


def test_a_closed_loop_never_has_more_calls_in_flight_than_callers():
    in_flight, most = 0, 0

    async def send(_: str) -> int:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return 1

    asyncio.run(closed_loop(send, ["a"] * 20, concurrency=5))
    assert most == 5
    asyncio.run(closed_loop(send, ["a"] * 3, concurrency=1))
    assert in_flight == 0


def test_a_closed_loop_with_a_time_goes_round_the_texts_until_it_is_over():
    async def send(_: str) -> int:
        await asyncio.sleep(0.001)
        return 1

    result = asyncio.run(closed_loop(send, ["a", "b"], concurrency=1, seconds=0.05))

    assert result.num_texts > 2
    assert result.seconds >= 0.05


def test_calls_of_several_texts_count_as_texts():
    async def send(texts) -> int:
        return len(texts)

    calls = in_calls(["a", "b", "c", "d", "e"], texts_per_call=2)
    result = asyncio.run(closed_loop(send, calls, concurrency=1))

    assert [len(call) for call in calls] == [2, 2, 1]
    assert (result.num_texts, len(result.latencies)) == (5, 3)


def test_refused_calls_are_counted_and_no_part_of_the_latencies():
    async def send(text: str) -> int:
        if text == "bad":
            raise Refused("RESOURCE_EXHAUSTED")
        return 1

    result = asyncio.run(closed_loop(send, ["good", "bad", "bad"], concurrency=1))

    assert result.failures == {"RESOURCE_EXHAUSTED": 2}
    assert result.num_texts == len(result.latencies) == 1


def test_other_errors_of_a_send_end_the_load():
    async def send(_: str) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(closed_loop(send, ["a"], concurrency=1))


def test_latencies_of_arrivals_count_from_when_they_were_due():
    async def send(_: str) -> int:
        time.sleep(0.02)  # blocks the client, which cannot make the next call
        return 1

    result = asyncio.run(poisson(send, ["a"] * 5, FAST))

    assert sorted(result.latencies) == result.latencies
    assert result.latencies[-1] >= 5 * 0.02 * 0.9


def test_arrivals_do_not_wait_for_answers():
    everybody = 10
    arrived = 0

    async def send(_: str) -> int:
        nonlocal arrived
        arrived += 1
        while arrived < everybody:
            await asyncio.sleep(0)
        return 1

    assert asyncio.run(poisson(send, ["a"] * everybody, FAST)).num_texts == everybody


def test_percentiles_are_latencies_that_occurred():
    result = LoadResult(seconds=1.0, latencies=[0.4, 0.1, 0.2, 0.3])

    assert result.latency(50) == 0.2
    assert result.latency(99) == 0.4
    assert result.latency(0) == 0.1


def test_systems_are_measured_in_turn_in_either_order_and_warm_ups_are_thrown_away():
    order = []

    def measure(name: str):
        async def run() -> int:
            order.append(name)
            return len(order)

        return run

    results = asyncio.run(in_turn({"a": measure("a"), "b": measure("b")}, rounds=2))

    assert order == ["a", "b", "b", "a", "a", "b"]
    assert results == {"a": [4, 5], "b": [3, 6]}


def test_a_load_without_answers_has_no_percentile():
    assert LoadResult(seconds=1.0).latency(50) != LoadResult(seconds=1.0).latency(50)
