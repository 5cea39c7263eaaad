"""One load on two servers in turn, and what is compared of it."""

import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.loads import LoadResult, closed_loop, in_calls, in_turn, one_at_a_time, poisson
from bench.reporting import Comparison, compare
from bench.translation_engines import Caller

CONCURRENCY = 64
TEXTS_PER_CALL, CONCURRENT_BATCHES = 32, 4
Measure = Callable[[Caller], Awaitable[LoadResult]]
OURS = "attendant"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table of ratios, ours over theirs."""

    load: str
    rival: str
    unit: str
    comparison: Comparison
    client_cpu_shares: dict[str, float]
    failures: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contest:
    """Our server and a rival's, loaded in turn with the same texts; the other one is idle."""

    ours: Caller
    rival: str
    saturated_rival: Caller
    """In the setting that is best for throughput."""
    single_rival: Caller
    """In the setting that is best for one text at a time."""
    texts: Sequence[str]
    rounds: int
    seconds: float
    """About how long one measurement takes."""
    capacity: float
    """Texts per second of the rival when saturated."""
    single_seconds: float
    """How long the rival takes for one text."""

    async def measure(self, load: str) -> list[Figure]:
        """Measure a load by its name; ValueError if there is none of that name."""
        if load.startswith("poisson"):
            return await self._poisson(load, int(load.removeprefix("poisson")) / 100)
        loads = {"saturated": self._saturated, "batches": self._batches, "single": self._single}
        if load not in loads:
            raise ValueError(f"no load {load}: want {', '.join(loads)} or poisson<percent>")
        return await loads[load]()

    async def _saturated(self) -> list[Figure]:
        calls = self._for_rate(self.capacity)
        results = await self._in_turn(lambda c: closed_loop(c.send, calls, CONCURRENCY))
        name = f"{CONCURRENCY} concurrent calls"
        return [
            self._figure(name, "texts/s", results, lambda r: r.texts_per_second),
            self._figure(name, "output tokens/s", results, lambda r: r.outputs_per_second),
            self._figure(name, "p50 ms", results, lambda r: 1e3 * r.latency(50)),
            self._figure(name, "p99 ms", results, lambda r: 1e3 * r.latency(99)),
        ]

    async def _batches(self) -> list[Figure]:
        calls = in_calls(self._for_rate(self.capacity), TEXTS_PER_CALL)
        results = await self._in_turn(lambda c: closed_loop(c.send_all, calls, CONCURRENT_BATCHES))
        name = f"{CONCURRENT_BATCHES} calls of {TEXTS_PER_CALL} texts"
        return [self._figure(name, "texts/s", results, lambda r: r.texts_per_second)]

    async def _single(self) -> list[Figure]:
        calls = self._for_rate(1 / self.single_seconds, fewest=20)
        results = await self._in_turn(lambda c: one_at_a_time(c.send, calls), single=True)
        return [
            self._figure("one at a time", "p50 ms", results, lambda r: 1e3 * r.latency(50)),
            self._figure("one at a time", "p99 ms", results, lambda r: 1e3 * r.latency(99)),
        ]

    async def _poisson(self, load: str, share: float) -> list[Figure]:
        rate = share * self.capacity
        calls = self._for_rate(rate)
        results = await self._in_turn(lambda c: poisson(c.send, calls, rate))
        name = f"Poisson, {rate:.0f} texts/s, {share:.0%} of its capacity"
        return [
            self._figure(name, "p50 ms", results, lambda r: 1e3 * r.latency(50)),
            self._figure(name, "p99 ms", results, lambda r: 1e3 * r.latency(99)),
        ]

    def _for_rate(self, texts_per_second: float, fewest: int = 2 * CONCURRENCY) -> list[str]:
        wanted = max(fewest, round(texts_per_second * self.seconds))
        return [self.texts[i % len(self.texts)] for i in range(wanted)]

    async def _in_turn(self, measure: Measure, single: bool = False) -> dict[str, list[LoadResult]]:
        rival = self.single_rival if single else self.saturated_rival
        return await in_turn(
            {OURS: lambda: measure(self.ours), self.rival: lambda: measure(rival)}, self.rounds
        )

    def _figure(
        self,
        load: str,
        unit: str,
        results: dict[str, list[LoadResult]],
        value: Callable[[LoadResult], float],
    ) -> Figure:
        values = {name: [value(r) for r in measured] for name, measured in results.items()}
        return Figure(
            load,
            self.rival,
            unit,
            compare(values[OURS], values[self.rival]),
            {
                name: statistics.median(r.client_cpu_share for r in measured)
                for name, measured in results.items()
            },
            {name: dict(failures_of(measured)) for name, measured in results.items()},
        )


def failures_of(results: Sequence[LoadResult]) -> Counter[str]:
    """All failures of several measurements, by reason."""
    return sum((result.failures for result in results), Counter[str]())
