"""The loads for embedding systems. Every load measures each system once per round."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from bench.embedding.caller import CONCURRENT_CALLS, TEXTS_PER_CALL
from bench.embedding.systems import BARE_LOOP, BATCHES_CALLERS, System
from bench.embedding.worker import FloatArray
from bench.loads import LoadResult, in_calls, in_turn
from bench.reporting import OURS, Figure, figures_of, ratios_table

NUM_SINGLE_TEXTS = 48
NUM_CALLERS = 64
POISSON_SHARE = 0.8


@dataclass(slots=True)
class Contest:
    """The running systems, the texts, and the results so far."""

    systems: Mapping[str, System]
    texts: Sequence[str]
    rounds: int
    figures: list[Figure] = field(default_factory=list)

    async def saturated(self) -> None:
        """Calls of many texts, as fast as possible."""
        measures = {name: partial(self._in_bulk, name) for name in self.systems}
        await self._compare("saturated", measures, ["texts/s"])

    async def concurrent(self) -> None:
        """Many concurrent callers of one text each."""
        measures = {
            name: partial(self._from_callers if name in BATCHES_CALLERS else self._in_bulk, name)
            for name in self.systems
            if name != BARE_LOOP
        }
        await self._compare(f"{NUM_CALLERS} callers of one text", measures, ["texts/s"])

    async def single(self) -> None:
        """One text at a time."""
        calls = in_calls(self.texts[:NUM_SINGLE_TEXTS], 1)
        measures = {name: partial(system.measure, calls) for name, system in self.systems.items()}
        await self._compare("one at a time", measures, ["p50 ms"])

    async def poisson(self) -> None:
        """Poisson arrivals at a rate that the rival can just sustain."""
        calls = in_calls(self.texts, 1)
        for rival in self.systems.keys() & (set(BATCHES_CALLERS) - {OURS}):
            rate = POISSON_SHARE * (await self._from_callers(rival)).texts_per_second
            measures = {
                name: partial(self.systems[name].measure, calls, calls_per_second=rate)
                for name in (OURS, rival)
            }
            await self._compare(f"Poisson, {rate:.0f} texts/s", measures, ["p50 ms", "p99 ms"])

    async def _in_bulk(self, name: str) -> LoadResult:
        if name == OURS:
            calls = in_calls(self.texts, TEXTS_PER_CALL)
            return await self.systems[name].measure(calls, CONCURRENT_CALLS)
        # In-process engines get all texts in one call and sort them by length themselves.
        return await self.systems[name].measure([self.texts])

    async def _from_callers(self, name: str) -> LoadResult:
        return await self.systems[name].measure(in_calls(self.texts, 1), NUM_CALLERS)

    async def _compare(
        self,
        load: str,
        measures: Mapping[str, Callable[[], Awaitable[LoadResult]]],
        units: Sequence[str],
    ) -> None:
        figures = figures_of(load, await in_turn(measures, self.rounds), units)
        print(ratios_table(figures), flush=True)
        self.figures += figures


def cosines(vectors: FloatArray, reference: FloatArray) -> tuple[float, float]:
    """Mean and smallest cosine between the rows (texts, d) of two arrays."""
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    found = (vectors.astype(np.float64) * reference).sum(axis=1) / norms
    return float(found.mean()), float(found.min())
