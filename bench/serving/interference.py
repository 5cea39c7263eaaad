"""Slowdown of running translations by a flood of embedding calls.

    python -m bench.serving.interference --data-dir DATA_DIR --pairs 10

Measures four long streams without and with a flood of embedding calls, alternately. The measured
times are the gaps between two pieces of a stream; a piece is a word or two from one or a few
decoding steps. Prints p50 and p99 of both and their ratios. A pair takes about ten seconds.
"""

import argparse
import asyncio
import itertools
import time
from collections.abc import Sequence

import grpc
from attendant.v1 import embedding_pb2, translation_pb2
from attendant.v1.embedding_pb2_grpc import EmbeddingServiceStub
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.arguments import add_server_flags, bench_parser
from bench.loads import LoadResult, in_calls, in_turn
from bench.reporting import figures_of, ratios_table, report
from bench.servers import ONE_OF_EACH_KIND, open_channel, running_server
from bench.texts import paragraphs, sample_texts

NUM_STREAMS = 4
NUM_TOKENS = 120
NUM_FLOODS, TEXTS_PER_CALL = 4, 64
ALONE, FLOODED = "alone", "flooded"


async def follow(channel: grpc.aio.Channel, source: str, result: LoadResult) -> None:
    """Read a translation as a stream and record each gap between two pieces as a latency."""
    options = translation_pb2.TranslateOptions(
        min_output_tokens=NUM_TOKENS, max_output_tokens=NUM_TOKENS
    )
    request = translation_pb2.StreamTranslateRequest(text=source, options=options)
    last: float | None = None
    async for _ in TranslationServiceStub(channel).StreamTranslate(request):
        now = time.perf_counter()
        if last is not None:
            result.latencies.append(now - last)
        last = now


async def flood(channel: grpc.aio.Channel, calls: Sequence[Sequence[str]], first: int) -> None:
    """Embed in an endless loop, as one of several callers that take turns in the calls."""
    embed = EmbeddingServiceStub(channel).Embed
    for i in itertools.count(first, NUM_FLOODS):
        await embed(embedding_pb2.EmbedRequest(texts=calls[i % len(calls)]))


async def measure(
    channel: grpc.aio.Channel, arguments: argparse.Namespace
) -> dict[str, list[LoadResult]]:
    """Gaps of the streams without and with the flood."""
    sources = sample_texts(arguments.data_dir, "short", NUM_STREAMS)
    calls = in_calls(paragraphs(arguments.data_dir, 1024), TEXTS_PER_CALL)

    async def alone() -> LoadResult:
        result = LoadResult()
        started = time.perf_counter()
        await asyncio.gather(*(follow(channel, source, result) for source in sources))
        result.seconds = time.perf_counter() - started
        return result

    async def flooded() -> LoadResult:
        floods = [asyncio.create_task(flood(channel, calls, i)) for i in range(NUM_FLOODS)]
        await asyncio.sleep(0.5)
        result = await alone()
        for task in floods:
            if not task.cancel():
                task.result()  # re-raises an error that ended the flood
        await asyncio.gather(*floods, return_exceptions=True)
        return result

    return await in_turn({ALONE: alone, FLOODED: flooded}, arguments.pairs)


async def run(arguments: argparse.Namespace) -> None:
    """Run the measurements and report them."""
    with running_server(ONE_OF_EACH_KIND, *arguments.server_flags) as server:
        async with open_channel(server) as channel:
            measured = await measure(channel, arguments)
    figures = figures_of("between two pieces", measured, ["p50 ms", "p99 ms"], FLOODED)
    report("interference", {"figures": figures}, ratios_table(figures))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    add_server_flags(parser)
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
