"""The loads for two translation servers, measured alternately with the same texts."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bench.loads import LoadResult, closed_loop, in_calls, in_turn, poisson
from bench.reporting import OURS, Figure, figures_of
from bench.translation.caller import TEXTS_PER_CALL, Caller

CONCURRENCY = 64
CONCURRENT_BATCHES = 4
LOADS = ("saturated", "batches", "single", r"poisson\d+")
Measure = Callable[[Caller], Awaitable[LoadResult]]


@dataclass(frozen=True, slots=True)
class Contest:
    """The attendant server and a rival's server."""

    ours: Caller
    rival: str
    saturated_rival: Caller
    """The rival in its best setting for throughput."""
    single_rival: Caller
    """The rival in its best setting for one text at a time."""
    texts: Sequence[str]
    rounds: int
    seconds: float
    """Approximate duration of one measurement."""
    capacity: float
    """Texts per second of the saturated rival."""
    single_seconds: float
    """Seconds of the rival for one text."""

    async def measure(self, load: str) -> list[Figure]:
        """Measure one of `LOADS`."""
        if load.startswith("poisson"):
            return await self._poisson(int(load.removeprefix("poisson")) / 100)
        loads = {"saturated": self._saturated, "batches": self._batches, "single": self._single}
        return await loads[load]()

    async def _saturated(self) -> list[Figure]:
        calls = self._for_rate(self.capacity)
        measured = await self._in_turn(lambda c: closed_loop(c.send, calls, CONCURRENCY))
        units = ["texts/s", "output tokens/s", "p50 ms", "p99 ms"]
        return figures_of(f"{CONCURRENCY} concurrent calls", measured, units)

    async def _batches(self) -> list[Figure]:
        calls = in_calls(self._for_rate(self.capacity), TEXTS_PER_CALL)
        measured = await self._in_turn(lambda c: closed_loop(c.send_all, calls, CONCURRENT_BATCHES))
        name = f"{CONCURRENT_BATCHES} calls of {TEXTS_PER_CALL} texts"
        return figures_of(name, measured, ["texts/s"])

    async def _single(self) -> list[Figure]:
        calls = self._for_rate(1 / self.single_seconds, fewest=20)
        measured = await self._in_turn(lambda c: closed_loop(c.send, calls, 1), single=True)
        return figures_of("one at a time", measured, ["p50 ms", "p99 ms"])

    async def _poisson(self, share: float) -> list[Figure]:
        rate = share * self.capacity
        calls = self._for_rate(rate)
        measured = await self._in_turn(lambda c: poisson(c.send, calls, rate))
        name = f"Poisson, {rate:.0f} texts/s, {share:.0%} of its capacity"
        return figures_of(name, measured, ["p50 ms", "p99 ms"])

    def _for_rate(self, texts_per_second: float, fewest: int = 2 * CONCURRENCY) -> list[str]:
        wanted = max(fewest, round(texts_per_second * self.seconds))
        return [self.texts[i % len(self.texts)] for i in range(wanted)]

    async def _in_turn(self, measure: Measure, single: bool = False) -> dict[str, list[LoadResult]]:
        rival = self.single_rival if single else self.saturated_rival
        return await in_turn(
            {OURS: lambda: measure(self.ours), self.rival: lambda: measure(rival)}, self.rounds
        )
