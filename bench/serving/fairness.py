"""Latency of a quiet caller beside floods of other callers.

    python -m bench.serving.fairness --data-dir DATA_DIR --pairs 5

A quiet caller sends short texts one at a time, alone and beside a flood, alternately. A flood has
four callers, each on a connection of its own with one call at a time: calls of 256 texts to
translate, or heavy `Score`, `FillMask` or `Embed` calls. The quiet caller translates; beside
`Embed` calls it embeds. Prints p50 and p99 beside the flood and alone, and their ratios.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any

import grpc
from attendant.v1 import embedding_pb2, translation_pb2
from attendant.v1.embedding_pb2_grpc import EmbeddingServiceStub
from attendant.v1.translation_pb2_grpc import TranslationServiceStub

from bench.arguments import add_server_flags, bench_parser
from bench.loads import LoadResult, in_calls, in_turn
from bench.reporting import Figure, figures_of, ratios_table, report
from bench.servers import ONE_OF_EACH_KIND, RunningServer, running_server
from bench.texts import paragraphs, sample_texts

NUM_FLOODS, TEXTS_PER_CALL = 4, 256
GAP_SECONDS = 0.02
"""Time between two texts of the quiet caller."""
BACK_OFF_SECONDS = 0.1
ALONE = "alone"

Call = Callable[[grpc.aio.Channel], Awaitable[Any]]


def connect(server: RunningServer) -> grpc.aio.Channel:
    """A channel with a connection of its own, which is what the server takes for a caller."""
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.aio.insecure_channel(server.target, options=options)


def translating(texts: Sequence[str]) -> Call:
    """A call that translates."""
    request = translation_pb2.TranslateRequest(texts=texts)
    return lambda channel: TranslationServiceStub(channel).Translate(request)


def scoring(texts: Sequence[str]) -> Call:
    """A call that scores each text as its own translation."""
    pairs = [translation_pb2.TranslationPair(source=text, target=text) for text in texts]
    request = translation_pb2.ScoreRequest(pairs=pairs)
    return lambda channel: TranslationServiceStub(channel).Score(request)


def embedding(texts: Sequence[str]) -> Call:
    """A call that embeds."""
    request = embedding_pb2.EmbedRequest(texts=texts)
    return lambda channel: EmbeddingServiceStub(channel).Embed(request)


def mask_filling(texts: Sequence[str]) -> Call:
    """A call that fills a mask at the end of each text."""
    request = embedding_pb2.FillMaskRequest(texts=[f"{text} [MASK]" for text in texts])
    return lambda channel: EmbeddingServiceStub(channel).FillMask(request)


async def flood(channel: grpc.aio.Channel, calls: Iterable[Call]) -> None:
    """Make calls in an endless loop; a refused call is made again later."""
    for call in cycle(calls):
        try:
            await call(channel)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            await asyncio.sleep(BACK_OFF_SECONDS)


async def quiet(channel: grpc.aio.Channel, calls: Iterable[Call]) -> LoadResult:
    """Make calls one at a time and record their latencies."""
    result = LoadResult()
    started = time.perf_counter()
    for call in calls:
        await asyncio.sleep(GAP_SECONDS)
        sent = time.perf_counter()
        await call(channel)
        result.latencies.append(time.perf_counter() - sent)
    result.seconds = time.perf_counter() - started
    return result


async def measure(
    server: RunningServer, num_pairs: int, quiet_calls: Sequence[Call], flood_calls: Sequence[Call]
) -> dict[str, list[LoadResult]]:
    """The quiet caller's latencies alone and beside the flood."""

    async def alone() -> LoadResult:
        async with connect(server) as channel:
            return await quiet(channel, quiet_calls)

    async def flooded() -> LoadResult:
        async with AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(connect(server)) for _ in range(NUM_FLOODS)]
            floods = [
                asyncio.create_task(flood(channel, [*flood_calls[i:], *flood_calls[:i]]))
                for i, channel in enumerate(channels)
            ]
            await asyncio.sleep(1.0)
            result = await alone()
            for task in floods:
                if not task.cancel():
                    task.result()  # re-raises an error that ended the flood
            await asyncio.gather(*floods, return_exceptions=True)
            return result

    return await in_turn({ALONE: alone, "flooded": flooded}, num_pairs)


async def run(arguments: argparse.Namespace) -> None:
    """Run the measurements and report them."""
    short = sample_texts(arguments.data_dir, "short", arguments.quiet_texts)
    many = in_calls(sample_texts(arguments.data_dir, "mixed", 4 * TEXTS_PER_CALL), TEXTS_PER_CALL)
    heavy = in_calls(paragraphs(arguments.data_dir, 4 * TEXTS_PER_CALL), TEXTS_PER_CALL)
    translations = [translating([text]) for text in short]
    loads = {
        "Translate": (translations, [translating(texts) for texts in many]),
        "Score": (translations, [scoring(texts) for texts in many]),
        "FillMask": (translations, [mask_filling(texts) for texts in many]),
        "Embed": ([embedding([text]) for text in short], [embedding(texts) for texts in heavy]),
    }
    figures: list[Figure] = []
    with running_server(ONE_OF_EACH_KIND, *arguments.server_flags) as server:
        for name in arguments.floods or loads:
            measured = await measure(server, arguments.pairs, *loads[name])
            figures += figures_of(f"beside {name}", measured, ["p50 ms", "p99 ms"], "flooded")
    report("fairness", {"figures": figures}, ratios_table(figures))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--floods", nargs="+", choices=["Translate", "Score", "FillMask", "Embed"], default=[]
    )
    parser.add_argument("--quiet-texts", type=int, default=100, help="texts of the quiet caller")
    add_server_flags(parser)
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
