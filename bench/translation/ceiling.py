"""Compares attendant with the bare loop over the same graphs, which runs in this process.

The loop gets sentences sorted by the length of their output, in static batches of the whole set.
The server gets the same sentences in 64 concurrent calls.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial

from tokenizers import Tokenizer

from bench.loads import LoadResult, closed_loop, in_turn
from bench.reporting import OURS, Figure, figures_of
from bench.translation.bare_loop import BareLoop
from bench.translation.caller import Caller
from bench.translation.contest import CONCURRENCY

BATCH_SIZES = (16, 32, 64)
NUM_SINGLE = 20
BARE_LOOP = "bare loop"


async def against_bare_loop(
    ours: Caller, arguments: argparse.Namespace, texts: Sequence[str]
) -> list[Figure]:
    """Saturated throughput and the latency of one text; greedy search only."""
    if arguments.beam_size != 1:
        print("skipped the bare loop, which supports only greedy search")
        return []
    loop = BareLoop(arguments.bundle, "int8")
    tokenizer = Tokenizer.from_file(str(arguments.bundle / "tokenizer.json"))
    warm_up = await closed_loop(ours.send, texts[:CONCURRENCY], CONCURRENCY)
    chosen = list(texts[: max(CONCURRENCY, round(warm_up.texts_per_second * arguments.seconds))])
    lengths = {text: await ours.send(text) for text in chosen}
    chosen.sort(key=lambda text: lengths[text])
    sources = [tokenizer.encode(text).ids for text in chosen]
    throughput = {n: (await _run(loop, sources, n)).texts_per_second for n in BATCH_SIZES}
    batch_size = max(BATCH_SIZES, key=lambda n: throughput[n])
    step = len(chosen) // NUM_SINGLE
    saturated = {
        OURS: partial(closed_loop, ours.send, texts[: len(chosen)], CONCURRENCY),
        BARE_LOOP: partial(_run, loop, sources, batch_size),
    }
    single = {
        OURS: partial(closed_loop, ours.send, chosen[::step], 1),
        BARE_LOOP: partial(_run, loop, sources[::step], 1),
    }
    load = f"{CONCURRENCY} concurrent calls, against sorted batches of {batch_size}"
    units = ["texts/s", "output tokens/s"]
    figures = figures_of(load, await in_turn(saturated, arguments.pairs), units)
    return figures + figures_of("one at a time", await in_turn(single, arguments.pairs), ["p50 ms"])


async def _run(loop: BareLoop, sources: list[list[int]], batch_size: int) -> LoadResult:
    result = LoadResult()
    started = time.perf_counter()
    for start in range(0, len(sources), batch_size):
        batch = sources[start : start + batch_size]
        begun = time.perf_counter()
        result.num_outputs += sum(map(len, loop.translate(batch)))
        result.latencies.append(time.perf_counter() - begun)
        result.num_texts += len(batch)
    result.seconds = time.perf_counter() - started
    return result
