"""Loads of calls on any system: one at a time, closed loop, or Poisson arrivals.

A load calls a ``send``: a coroutine function that takes the texts of one call and returns the
number of output units (tokens or texts) of its answer. It raises `Refused` for a refused or failed
call. Failed calls are counted, but latencies and outputs leave them out.
"""

import asyncio
import itertools
import math
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Texts = TypeVar("Texts", str, Sequence[str])
Send = Callable[[Texts], Awaitable[int]]
Name = TypeVar("Name")
Measured = TypeVar("Measured")


class Refused(Exception):
    """A call without an answer. Its text is the reason to count, such as a status code."""


@dataclass(slots=True)
class LoadResult:
    """The results of a load. Its clock runs from the first call to the last answer."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answered call, in order of completion."""
    num_texts: int = 0
    num_outputs: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    client_cpu_seconds: float = 0.0
    """Processor time of the client's process, which also runs some of the engines."""
    server_cpu_seconds: float = 0.0
    """Processor time of the server's process, if the bench measures it."""

    @property
    def texts_per_second(self) -> float:
        """Answered texts per second."""
        return self.num_texts / self.seconds

    @property
    def outputs_per_second(self) -> float:
        """Output units per second; the units of translations are tokens."""
        return self.num_outputs / self.seconds

    @property
    def client_cpu_share(self) -> float:
        """Share of the time of all processors that this process used."""
        return self.client_cpu_seconds / (self.seconds * len(os.sched_getaffinity(0)))

    def latency(self, percent: float) -> float:
        """Percentile of the latencies in seconds (nearest rank); NaN if no call was answered."""
        if not self.latencies:
            return math.nan
        rank = math.ceil(percent / 100 * len(self.latencies))
        return sorted(self.latencies)[max(rank, 1) - 1]


UNITS: dict[str, Callable[[LoadResult], float]] = {
    "texts/s": lambda result: result.texts_per_second,
    "output tokens/s": lambda result: result.outputs_per_second,
    "p50 ms": lambda result: 1e3 * result.latency(50),
    "p99 ms": lambda result: 1e3 * result.latency(99),
    "server's CPU ms/text": lambda result: 1e3 * result.server_cpu_seconds / result.num_texts,
}
"""The figures that benches compare, by name and unit."""


class _Recorder(Generic[Texts]):
    """Makes the calls of one load and records their results."""

    def __init__(self, send: Send[Texts]) -> None:
        self._send: Send[Texts] = send
        self._result = LoadResult()
        self._cpu_started = time.process_time()
        self.started = time.perf_counter()

    async def call(self, texts: Texts, due: float | None = None) -> None:
        """Make one call. Its latency counts from ``due``, the scheduled time, if given."""
        started = time.perf_counter() if due is None else due
        try:
            outputs = await self._send(texts)
        except Refused as refused:
            self._result.failures[str(refused)] += 1
            return
        self._result.latencies.append(time.perf_counter() - started)
        self._result.num_outputs += outputs
        self._result.num_texts += 1 if isinstance(texts, str) else len(texts)

    def finish(self) -> LoadResult:
        """The result, after all calls have ended."""
        self._result.seconds = time.perf_counter() - self.started
        self._result.client_cpu_seconds = time.process_time() - self._cpu_started
        return self._result


async def closed_loop(
    send: Send[Texts], calls: Sequence[Texts], concurrency: int, seconds: float | None = None
) -> LoadResult:
    """Calls from ``concurrency`` callers, which each wait for an answer before the next call.

    Makes all calls once. With ``seconds``, repeats them until that time has passed, then waits for
    the calls in flight and counts them.
    """
    recorder = _Recorder(send)
    queue: Iterator[Texts] = iter(calls) if seconds is None else itertools.cycle(calls)
    ends = math.inf if seconds is None else recorder.started + seconds

    async def caller() -> None:
        while time.perf_counter() < ends and (texts := next(queue, None)) is not None:
            await recorder.call(texts)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return recorder.finish()


async def poisson(
    send: Send[Texts], calls: Sequence[Texts], calls_per_second: float, seed: int = 1
) -> LoadResult:
    """Poisson arrivals: calls at random times that do not wait for earlier answers.

    Latencies count from the scheduled time of a call, so they include delays of a slow system or a
    slow client.
    """
    rng = random.Random(seed)
    recorder = _Recorder(send)
    due, tasks = recorder.started, []
    for texts in calls:
        due += rng.expovariate(calls_per_second)
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(recorder.call(texts, due)))
    await asyncio.gather(*tasks)
    return recorder.finish()


def in_calls(texts: Sequence[str], texts_per_call: int) -> list[Sequence[str]]:
    """Split texts into calls of ``texts_per_call`` texts; the last call may have fewer."""
    return [texts[i : i + texts_per_call] for i in range(0, len(texts), texts_per_call)]


async def in_turn(
    measures: Mapping[Name, Callable[[], Awaitable[Measured]]], rounds: int, warm_ups: int = 1
) -> dict[Name, list[Measured]]:
    """Measure each system once per round, one after the other. Discards the warm-up rounds.

    Every other round has the reverse order, so that no system always follows the same one.
    """
    results: dict[Name, list[Measured]] = {name: [] for name in measures}
    for i in range(warm_ups + rounds):
        for name in reversed(list(measures)) if i % 2 else list(measures):
            result = await measures[name]()
            if i >= warm_ups:
                results[name].append(result)
    return results
