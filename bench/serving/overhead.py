"""The cost of observability: scraped metrics, exported spans, and a log line per call.

    python -m bench.serving.overhead --data-dir DATA_DIR --pairs 20

Loads two servers alternately with the same calls of one text each. One server has everything that
``--parts`` names enabled, with all calls traced; the other has it disabled. Prints the ratios of
throughput and of the server's processor time per call. A bare gRPC method in this process receives
the spans, and it must have received some. Scrapes come every 15 seconds.
"""

from __future__ import annotations  # some classes of grpc are generic in its stubs only

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import grpc

from bench.arguments import add_server_flags, bench_parser, some_of
from bench.embedding.caller import embedding_caller
from bench.loads import LoadResult, Send, closed_loop, in_turn
from bench.reporting import Figure, figures_of, ratios_table, report
from bench.servers import ONE_OF_EACH_KIND, RunningServer, running_server
from bench.texts import sample_texts
from bench.translation.caller import translation_caller

CONCURRENCY = 64
NUM_TEXTS = 2048
SCRAPE_SECONDS = 15.0
EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"
PARTS = ("metrics", "tracing", "logs")
WATCHED, UNWATCHED = "watched", "unwatched"
Start = Callable[[], AbstractContextManager[RunningServer]]
"""Starts a server, which runs while the block does."""


@asynccontextmanager
async def running_collector(received: list[int]) -> AsyncIterator[str]:
    """An OTLP collector that records the sizes of the batches it receives; yields its endpoint."""

    async def export(request: bytes, _: Any) -> bytes:
        received.append(len(request))
        return b""

    server = grpc.aio.server()
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Export": grpc.unary_unary_rpc_method_handler(export)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(EXPORT, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


def flags_of(parts: Sequence[str], endpoint: str) -> list[str]:
    """The flags of a server with only the given parts enabled."""
    metrics = [] if "metrics" in parts else ["--metrics-port=-1"]
    tracing = [f"--trace-endpoint={endpoint}"] if "tracing" in parts else []
    logs = ["--log-level=info", "--log-format=json"] if "logs" in parts else []
    return metrics + tracing + logs


async def load_server(
    server: RunningServer, send: Send[str], texts: Sequence[str], num_callers: int, seconds: float
) -> LoadResult:
    """Load a server with ``num_callers`` calls at a time for ``seconds``."""
    cpu_seconds = server.cpu_seconds()
    result = await closed_loop(send, texts, num_callers, seconds)
    result.server_cpu_seconds = server.cpu_seconds() - cpu_seconds
    return result


async def measure(
    server: RunningServer, send: Send[str], texts: Sequence[str], seconds: float, is_scraped: bool
) -> LoadResult:
    """Load one server, which may be scraped meanwhile, with concurrent calls for ``seconds``."""

    async def scrape() -> None:
        while is_scraped:
            await asyncio.to_thread(server.read_metrics)
            await asyncio.sleep(SCRAPE_SECONDS)

    scraping = asyncio.create_task(scrape())
    result = await load_server(server, send, texts, CONCURRENCY, seconds)
    scraping.cancel()
    return result


@asynccontextmanager
async def sending(load: str, server: RunningServer) -> AsyncIterator[Send[str]]:
    """The ``send`` of a load: ``translate`` or ``embed``."""
    if load == "translate":
        async with translation_caller(server, beam_size=1) as translating:
            yield translating.send
    else:
        async with embedding_caller(server) as embedding:
            yield lambda text: embedding.send([text])


async def run(arguments: argparse.Namespace) -> None:
    """Run the measurements and report them."""
    parts = arguments.parts
    figures: list[Figure] = []
    spans: list[int] = []

    def measured(
        name: str, server: RunningServer, send: Send[str], texts: Sequence[str]
    ) -> Awaitable[LoadResult]:
        is_scraped = name == WATCHED and "metrics" in parts
        return measure(server, send, texts, arguments.seconds, is_scraped)

    async with AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(running_collector(spans))
        log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        start = partial(running_server, ONE_OF_EACH_KIND, *arguments.server_flags, log=log)
        starts = {
            WATCHED: partial(start, *flags_of(parts, endpoint)),
            UNWATCHED: partial(start, *flags_of([], "")),
        }
        for load in arguments.loads:
            results = await measure_in_turn(load, starts, arguments, measured)
            figures += figures_of(load, results, ["texts/s", "server's CPU ms/text"], WATCHED)
        # Fail if an enabled part did nothing.
        if "tracing" in parts and not spans:
            raise SystemExit("no spans were received")
        if "logs" in parts and not log.tell():
            raise SystemExit("no line was logged")
    report("overhead", {"parts": parts, "figures": figures}, ratios_table(figures))


async def measure_in_turn(
    load: str,
    starts: Mapping[str, Start],
    arguments: argparse.Namespace,
    measure_one: Callable[[str, RunningServer, Send[str], Sequence[str]], Awaitable[LoadResult]],
) -> dict[str, list[LoadResult]]:
    """The results of ``arguments.pairs`` rounds of a load, by the names of the servers.

    ``measure_one`` gets a server with its name, its ``send`` over one connection, and the texts.
    All servers are started in one order for half of the rounds, and in the reverse order for the
    others: of two equal servers on two processors, the one that was started first is slower.
    """
    texts = sample_texts(arguments.data_dir, "short", NUM_TEXTS)
    results: dict[str, list[LoadResult]] = {name: [] for name in starts}
    half = arguments.pairs // 2
    for order, rounds in ((list(starts), arguments.pairs - half), ([*starts][::-1], half)):
        if not rounds:
            continue
        async with AsyncExitStack() as stack:
            servers = {name: stack.enter_context(starts[name]()) for name in order}
            sends = {
                name: await stack.enter_async_context(sending(load, server))
                for name, server in servers.items()
            }
            measures = {
                name: partial(measure_one, name, servers[name], sends[name], texts)
                for name in order
            }
            for name, found in (await in_turn(measures, rounds)).items():
                results[name] += found
    return results


def parts_parser(
    description: str | None, parts: Sequence[str], seconds: float
) -> argparse.ArgumentParser:
    """The parser of a bench that compares a server with ``parts`` and one without them."""
    parser = bench_parser(description)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=seconds, help="of each measurement")
    loads = some_of("translate", "embed")
    parser.add_argument("--loads", type=loads, default="translate,embed", help="translate, embed")
    help_of_parts = f"enabled on one of the servers: {', '.join(parts)}"
    parser.add_argument("--parts", type=some_of(*parts), default=list(parts), help=help_of_parts)
    add_server_flags(parser)
    return parser


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    return parts_parser(__doc__, PARTS, 15.0)


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
