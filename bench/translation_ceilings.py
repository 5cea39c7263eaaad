"""Our server against what runs without a server, in this process: our graphs, Hugging Face.

Both are given sentences sorted perfectly by the length of their output, in static batches, and the
whole set at once; the server gets the same sentences in 64 concurrent calls.
"""

import argparse
import json
import time
from collections.abc import Awaitable, Callable, Sequence

from tokenizers import Tokenizer

from bench.bare_loop import BareLoop
from bench.loads import LoadResult, closed_loop, in_turn, one_at_a_time
from bench.reporting import compare
from bench.translation_engines import Caller
from bench.translation_loads import CONCURRENCY, OURS, Figure

BATCH_SIZES = (16, 32, 64)
NUM_SINGLE = 20
BARE_LOOP, HUGGING_FACE = "bare loop", "Hugging Face"
Translate = Callable[[list[list[int]], list[int]], int]
"""Translates a batch of sources whose output lengths are given; the number of output tokens."""


async def against_bare_loop(
    ours: Caller, arguments: argparse.Namespace, texts: Sequence[str]
) -> list[Figure]:
    """Our server against a bare loop over the graphs that it runs; greedy search only."""
    if arguments.beam_size != 1:
        print("the bare loop is greedy only: left out")
        return []
    loop = BareLoop(arguments.bundle, "int8")
    contest = _Ceiling(BARE_LOOP, lambda sources, _: sum(map(len, loop.translate(sources))))
    return await contest.measure(ours, arguments, texts)


async def against_hugging_face(
    ours: Caller, arguments: argparse.Namespace, texts: Sequence[str]
) -> list[Figure]:
    """Our server against ``generate`` of a Marian model of the same sizes."""
    from bench.rivals.hugging_face_marian import RandomMarian  # installed only beside rivals

    manifest = json.loads((arguments.bundle / "manifest.json").read_text())
    marian = RandomMarian(manifest["translation_sizes"], arguments.beam_size)
    return await _Ceiling(HUGGING_FACE, marian.translate).measure(ours, arguments, texts)


class _Ceiling:
    """Something that is called with batches in this process."""

    def __init__(self, name: str, translate: Translate) -> None:
        self._name, self._translate = name, translate

    async def measure(
        self, ours: Caller, arguments: argparse.Namespace, texts: Sequence[str]
    ) -> list[Figure]:
        """Saturated throughput and the latency of one text."""
        tokenizer = Tokenizer.from_file(str(arguments.bundle / "tokenizer.json"))
        warm_up = await closed_loop(ours.send, texts[:CONCURRENCY], CONCURRENCY)
        chosen = list(
            texts[: max(CONCURRENCY, round(warm_up.texts_per_second * arguments.seconds))]
        )
        lengths = {text: await ours.send(text) for text in chosen}
        chosen.sort(key=lambda text: lengths[text])
        pairs = [(tokenizer.encode(text).ids, lengths[text]) for text in chosen]
        batch_size = max(BATCH_SIZES, key=lambda size: self._run(pairs, size).texts_per_second)
        saturated = await self._in_turn(
            lambda: closed_loop(ours.send, texts[: len(chosen)], CONCURRENCY),
            lambda: self._run(pairs, batch_size),
            arguments.pairs,
        )
        single = await self._in_turn(
            lambda: one_at_a_time(ours.send, chosen[:: len(chosen) // NUM_SINGLE]),
            lambda: self._run(pairs[:: len(chosen) // NUM_SINGLE], 1),
            arguments.pairs,
        )
        name = f"{CONCURRENCY} concurrent calls, against sorted batches of {batch_size}"
        return [
            self._figure(name, "texts/s", saturated, lambda r: r.texts_per_second),
            self._figure(name, "output tokens/s", saturated, lambda r: r.outputs_per_second),
            self._figure("one at a time", "p50 ms", single, lambda r: 1e3 * r.latency(50)),
        ]

    def _run(self, pairs: Sequence[tuple[list[int], int]], batch_size: int) -> LoadResult:
        result = LoadResult()
        started = time.perf_counter()
        for start in range(0, len(pairs), batch_size):
            batch = pairs[start : start + batch_size]
            begun = time.perf_counter()
            result.num_outputs += self._translate([s for s, _ in batch], [n for _, n in batch])
            result.latencies.append(time.perf_counter() - begun)
            result.num_texts += len(batch)
        result.seconds = time.perf_counter() - started
        return result

    async def _in_turn(
        self,
        ours: Callable[[], Awaitable[LoadResult]],
        theirs: Callable[[], LoadResult],
        rounds: int,
    ) -> dict[str, list[LoadResult]]:
        async def run_theirs() -> LoadResult:
            return theirs()

        return await in_turn({OURS: ours, self._name: run_theirs}, rounds)

    def _figure(
        self,
        load: str,
        unit: str,
        results: dict[str, list[LoadResult]],
        value: Callable[[LoadResult], float],
    ) -> Figure:
        ours, theirs = ([value(r) for r in results[name]] for name in (OURS, self._name))
        return Figure(load, self._name, unit, compare(ours, theirs), {})
