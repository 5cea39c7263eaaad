"""Embeddings: our server against others on the same weights, measured in turn.

    python -m bench.embedding --data-dir DATA_DIR --model minilm --precision fp32 \\
        --rivals sentence-transformers,bare-loop --loads saturated,single --pairs 20

Every engine is loaded once and idles while the others are measured; all have two threads or as
many as there are processors. A round measures each engine once, the first round is thrown away.
Prints a table with ratios of medians, the quartiles and extremes of the ratios of neighbours, and
the cosines to sentence-transformers in fp32; saves all in ``build/bench/``.

Loads:
saturated    all texts as fast as possible: engines in process get them in one call and sort them,
             servers get calls of many texts
concurrent   64 callers with one text each; sentence-transformers, which has no way to batch them,
             gets all texts in one call as before
single       one text at a time, median latency
poisson      texts arrive on their own at 80 % of what the rival answers with 64 callers; p50, p99
sweep        throughput with 1 to 256 callers of one text each
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from bench import reporting
from bench.embedding_engines import (
    BARE_LOOP,
    BULK,
    OURS,
    REFERENCE,
    RIVALS,
    WHOLE,
    System,
    start,
)
from bench.embedding_worker import FloatArray
from bench.loads import LoadResult, in_calls, in_turn
from bench.models.encoders import PRECISIONS, SIZES, Encoder, prepare
from bench.texts import add_data_dir, paragraphs, sample_texts

NUM_TEXTS = {"minilm": 512, "bert-base": 256}
"""Fewer would be more padding for those who cut them, sorted, into batches of 32."""
NUM_SINGLE_TEXTS = 48
NUM_COSINE_TEXTS = 128
NUM_CALLERS = 64
SWEEP = (1, 2, 4, 8, 16, 32, 64, 128, 256)
POISSON_SHARE = 0.8
SERVERS = (OURS, "infinity", "triton")
"""What batches texts of different callers."""

Measures = Mapping[str, Callable[[], Awaitable[LoadResult]]]


@dataclass(slots=True)
class Bench:
    """The running systems, the texts, and what was measured so far."""

    systems: Mapping[str, System]
    texts: Sequence[str]
    pairs: int
    cosines: Mapping[str, tuple[float, float]]
    rows: list[list[str]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def rivals(self) -> list[str]:
        """All systems but ours."""
        return [name for name in self.systems if name != OURS]

    async def saturated(self) -> None:
        """Many texts per call."""
        measures = {name: partial(self._in_bulk, name) for name in self.systems}
        self._add("saturated, texts/s", await in_turn(measures, self.pairs), throughput)

    async def concurrent(self) -> None:
        """Many callers of one text each."""
        callers = partial(self._from_callers, concurrency=NUM_CALLERS)
        measures = {
            name: partial(callers if name in SERVERS else self._in_bulk, name)
            for name in self.systems
            if name != BARE_LOOP
        }
        measured = await in_turn(measures, self.pairs)
        self._add(f"{NUM_CALLERS} callers, texts/s", measured, throughput)

    async def single(self) -> None:
        """One text at a time."""
        calls = in_calls(self.texts[:NUM_SINGLE_TEXTS], 1)
        measures = {
            name: partial(system.closed_loop, calls, 1) for name, system in self.systems.items()
        }
        self._add("one text, p50 ms", await in_turn(measures, self.pairs), percentile_ms(50))

    async def poisson(self) -> None:
        """Texts that arrive on their own, at a rate that the rival can just bear."""
        calls = in_calls(self.texts, 1)
        for rival in (name for name in self.rivals if name in SERVERS):
            capacity = (await self._from_callers(rival, NUM_CALLERS)).texts_per_second
            rate = POISSON_SHARE * capacity
            measures = {
                name: partial(self.systems[name].poisson, calls, rate) for name in (OURS, rival)
            }
            measured = await in_turn(measures, self.pairs)
            for percent in (50, 99):
                what = f"{rate:.0f} texts/s arriving, p{percent} ms"
                self._add(what, measured, percentile_ms(percent))

    async def sweep(self) -> None:
        """Throughput against the number of callers."""
        servers = [name for name in self.systems if name in SERVERS]
        found: dict[str, list[float]] = {name: [] for name in servers}
        for concurrency in SWEEP:
            measures = {name: partial(self._from_callers, name, concurrency) for name in servers}
            measured = await in_turn(measures, self.pairs)
            for name, results in measured.items():
                found[name].append(reporting.spread([throughput(r) for r in results]).median)
        curves = [reporting.Curve(name, SWEEP, y) for name, y in found.items()]
        labels = ("Embeddings: throughput against concurrency", "callers", "texts/s")
        reporting.draw("embedding-throughput", curves, *labels, log_x=True)
        self.results["sweep"] = {"callers": SWEEP, **found}
        print(
            reporting.markdown_table(
                ["callers", *map(str, SWEEP)],
                [[name, *(f"{value:.1f}" for value in y)] for name, y in found.items()],
            )
        )

    async def _in_bulk(self, name: str) -> LoadResult:
        bulk = BULK.get(name, WHOLE)
        calls = in_calls(self.texts, bulk.texts_per_call)
        return await self.systems[name].closed_loop(calls, bulk.concurrency)

    async def _from_callers(self, name: str, concurrency: int) -> LoadResult:
        return await self.systems[name].closed_loop(in_calls(self.texts, 1), concurrency)

    def _add(
        self,
        what: str,
        measured: Mapping[str, Sequence[LoadResult]],
        figure: Callable[[LoadResult], float],
    ) -> None:
        """A row for each rival."""
        ours = [figure(result) for result in measured[OURS]]
        for rival in (name for name in measured if name != OURS):
            compared = reporting.compare(ours, [figure(result) for result in measured[rival]])
            self.results.setdefault(what, {})[rival] = compared
            self.rows.append([what, rival, *_cells(compared), *self._cosine_cells(rival)])
            print(self.rows[-1], flush=True)
        failures = {n: dict(f) for n, r in measured.items() if (f := r[-1].failures)}
        if failures:
            print(f"calls that got no answer: {failures}")
            self.results[f"{what}, failures"] = failures

    def _cosine_cells(self, rival: str) -> list[str]:
        return ["{:.7f} / {:.7f}".format(*self.cosines[name]) for name in (OURS, rival)]

    def table(self) -> str:
        """All rows so far."""
        headers = ["load", "rival", "ours", "theirs", "ratio", "ratios of pairs"]
        headers += [f"cosine of {name}, mean / least" for name in ("ours", "theirs")]
        return reporting.markdown_table(headers, self.rows)


def _cells(compared: reporting.Comparison) -> list[str]:
    medians = [f"{side.median:.4g}" for side in (compared.ours, compared.theirs)]
    return [*medians, f"**{compared.ratio_of_medians:.2f}**", f"{compared.pair_ratios:.2f}"]


def throughput(result: LoadResult) -> float:
    """Texts per second."""
    return result.texts_per_second


def percentile_ms(percent: float) -> Callable[[LoadResult], float]:
    """A percentile of the latencies in milliseconds."""
    return lambda result: 1000 * result.latency(percent)


def cosines(vectors: FloatArray, reference: FloatArray) -> tuple[float, float]:
    """Mean and least cosine between rows (texts, d) of two arrays."""
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    found = (vectors.astype(np.float64) * reference).sum(axis=1) / norms
    return float(found.mean()), float(found.min())


async def measure(arguments: argparse.Namespace, encoder: Encoder, texts: list[str]) -> Bench:
    """Start everything, run the loads that were asked for."""
    names = list(dict.fromkeys([OURS, REFERENCE, *arguments.rivals]))
    async with AsyncExitStack() as stack:
        systems = {
            name: await stack.enter_async_context(start(name, encoder, arguments.precision))
            for name in names
        }
        sample = texts[:NUM_COSINE_TEXTS]
        vectors = {name: await system.vectors(sample) for name, system in systems.items()}
        compared = {name: cosines(v, vectors[REFERENCE]) for name, v in vectors.items()}
        wanted = {n: s for n, s in systems.items() if n == OURS or n in arguments.rivals}
        bench = Bench(wanted, texts, arguments.pairs, compared)
        for load in arguments.loads:
            await LOADS[load](bench)
    return bench


LOADS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "saturated": Bench.saturated,
    "concurrent": Bench.concurrent,
    "single": Bench.single,
    "poisson": Bench.poisson,
    "sweep": Bench.sweep,
}


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{unknown} are none of {', '.join(known)}")
        return names

    return parse


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_dir(parser)
    parser.add_argument("--model", choices=SIZES, default="minilm")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of ours")
    parser.add_argument(
        "--rivals", type=_names([*RIVALS, BARE_LOOP]), default=[REFERENCE, BARE_LOOP]
    )
    parser.add_argument("--loads", type=_names(list(LOADS)), default=["saturated", "single"])
    parser.add_argument("--pairs", type=int, default=20, help="rounds that count")
    parser.add_argument("--texts", choices=("paragraphs", "short"), default="paragraphs")
    parser.add_argument("--num-texts", type=int, help="in a round; default by the model's size")
    return parser


def main() -> None:
    """Measure, print, save."""
    arguments = build_parser().parse_args()
    encoder = prepare(arguments.model, arguments.data_dir)
    num_texts = arguments.num_texts or NUM_TEXTS[arguments.model]
    if arguments.texts == "short":
        texts = sample_texts(arguments.data_dir, "short", num_texts)
    else:
        texts = paragraphs(arguments.data_dir, num_texts)
    bench = asyncio.run(measure(arguments, encoder, texts))
    print(bench.table())
    name = f"embedding-{arguments.model}-{arguments.precision}-{arguments.texts}"
    print(reporting.save_results(name, {"num_texts": num_texts, **bench.results}))


if __name__ == "__main__":
    main()
