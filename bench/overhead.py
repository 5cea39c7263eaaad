"""What it costs to watch the server: scraped metrics, spans that are sent, a log line a call.

    python -m bench.overhead --data-dir DATA_DIR --pairs 20

Two servers are loaded in turn with the same calls, one text each: one with everything on that
``--parts`` names, every call traced; the other with all of it off. Printed are the ratios of the
throughput, and of the processor time that the server took for a call. The collector of the spans
is a bare gRPC method in this process, and it must have got some; scrapes come every 15 seconds.
"""

from __future__ import annotations  # some classes of grpc are generic in its stubs only

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from bench import embedding_engines, translation_engines
from bench.loads import LoadResult, Send, closed_loop, in_turn
from bench.reporting import Comparison, compare, markdown_table, save_results
from bench.serving import ONE_OF_EACH_KIND, RunningServer, running_server
from bench.texts import add_data_dir, sample_texts

CONCURRENCY = 64
NUM_TEXTS = 2048
SCRAPE_SECONDS = 15.0
EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"
PARTS = ("metrics", "tracing", "logs")
WATCHED, UNWATCHED = "watched", "unwatched"


@dataclass(slots=True)
class Collector:
    """An end of OTLP that counts the bytes that come and throws them away."""

    endpoint: str = ""
    num_bytes: int = 0

    async def export(self, request: bytes, context: Any) -> bytes:
        """Take a batch of spans; the answer is an empty message."""
        self.num_bytes += len(request)
        return b""


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    """A collector of this process, on a free port."""
    collector, server = Collector(), grpc.aio.server()
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Export": grpc.unary_unary_rpc_method_handler(collector.export)
    }
    handler = grpc.method_handlers_generic_handler(EXPORT, methods)
    server.add_generic_rpc_handlers((handler,))
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


def flags_of(parts: Sequence[str], endpoint: str) -> list[str]:
    """How a server is started with just these parts on."""
    flags = [] if "metrics" in parts else ["--metrics-port=-1"]
    if "tracing" in parts:
        flags.append(f"--trace-endpoint={endpoint}")
    if "logs" in parts:
        flags += ["--log-level=info", "--log-format=json"]
    return flags


@dataclass(slots=True)
class Measured:
    """One load on one server."""

    calls_per_second: float
    server_seconds_per_call: float
    client_cpu_share: float
    failures: dict[str, int] = field(default_factory=dict)


async def measure(
    server: RunningServer, send: Send[str], texts: Sequence[str], seconds: float, is_scraped: bool
) -> Measured:
    """Load one server with concurrent calls for so long."""
    scraping = asyncio.create_task(_scrape(server)) if is_scraped else None
    cpu_seconds = server.cpu_seconds()
    result = await closed_loop(send, texts, CONCURRENCY, seconds)
    cpu_seconds = server.cpu_seconds() - cpu_seconds
    if scraping is not None:
        scraping.cancel()
    return _measured(result, cpu_seconds)


async def _scrape(server: RunningServer) -> None:
    while True:
        await asyncio.to_thread(server.read_metrics)
        await asyncio.sleep(SCRAPE_SECONDS)


def _measured(result: LoadResult, cpu_seconds: float) -> Measured:
    return Measured(
        result.texts_per_second,
        cpu_seconds / result.num_texts,
        result.client_cpu_share,
        dict(result.failures),
    )


@asynccontextmanager
async def sending(load: str, server: RunningServer) -> AsyncIterator[Send[str]]:
    """What makes one call of a load, ``translate`` or ``embed``."""
    if load == "translate":
        async with translation_engines.connected(server, beam_size=1) as translating:
            yield translating.send
    else:
        async with embedding_engines.connected(server) as embedding:
            yield lambda text: embedding.send([text])


async def run(arguments: argparse.Namespace) -> None:
    """Measure in turn and print the table."""
    parts = arguments.parts.split(",")
    if unknown := set(parts).difference(PARTS):
        raise SystemExit(f"--parts: no such part: {', '.join(sorted(unknown))}")
    texts = sample_texts(arguments.data_dir, "short", NUM_TEXTS)
    common = [ONE_OF_EACH_KIND, *arguments.server_flags.split()]
    figures: dict[str, Comparison] = {}
    async with running_collector() as collector:
        flags = {WATCHED: flags_of(parts, collector.endpoint), UNWATCHED: flags_of([], "")}
        with tempfile.TemporaryFile() as log, ExitStack() as stack:
            servers = {
                name: stack.enter_context(running_server(*common, *own, log=log))
                for name, own in flags.items()
            }
            for load in arguments.loads.split(","):
                figures |= await _compare(load, servers, texts, arguments, "metrics" in parts)
            _check(parts, collector, log.tell())
    print(table(figures))
    print(save_results("overhead", {"parts": parts, **figures}))


async def _compare(
    load: str,
    servers: dict[str, RunningServer],
    texts: Sequence[str],
    arguments: argparse.Namespace,
    has_metrics: bool,
) -> dict[str, Comparison]:
    async with AsyncExitStack() as stack:
        sends = {
            name: await stack.enter_async_context(sending(load, server))
            for name, server in servers.items()
        }
        found = await in_turn(
            {
                name: lambda n=name: measure(  # type: ignore[misc]
                    servers[n], sends[n], texts, arguments.seconds, has_metrics and n == WATCHED
                )
                for name in servers
            },
            arguments.pairs,
        )
    shares = [m.client_cpu_share for measured in found.values() for m in measured]
    failures = [m.failures for measured in found.values() for m in measured if m.failures]
    share = statistics.median(shares)
    print(f"{load}: the client took {share:.0%} of the processors; failed calls: {failures}")
    values = {
        "calls/s": {n: [m.calls_per_second for m in found[n]] for n in found},
        "server ms/call": {n: [1e3 * m.server_seconds_per_call for m in found[n]] for n in found},
    }
    return {f"{load}, {unit}": compare(v[WATCHED], v[UNWATCHED]) for unit, v in values.items()}


def _check(parts: Sequence[str], collector: Collector, num_log_bytes: int) -> None:
    """Nothing is said of what did not happen."""
    if "tracing" in parts and not collector.num_bytes:
        raise SystemExit("no span has come")
    if "logs" in parts and not num_log_bytes:
        raise SystemExit("no line was logged")


def table(figures: dict[str, Comparison]) -> str:
    """Both medians, and the ratios of the pairs."""
    rows = [
        [
            name,
            f"{both.ours.median:.2f}",
            f"{both.theirs.median:.2f}",
            f"{both.pair_ratios:.3f}",
        ]
        for name, both in figures.items()
    ]
    return markdown_table(["load", WATCHED, UNWATCHED, "ratio (quartiles; extremes)"], rows)


def main() -> None:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_data_dir(parser)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each measurement")
    parser.add_argument("--loads", default="translate,embed", help="translate, embed")
    parser.add_argument("--parts", default=",".join(PARTS), help="what the watched server has on")
    parser.add_argument("--server-flags", default="", help="for both, blanks between them")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
