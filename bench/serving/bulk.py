"""Throughput of one bulk call against calls of 32 texts, one after the other.

    python -m bench.serving.bulk --data-dir DATA_DIR --pairs 5

Translates and embeds the same mixed texts with `BulkTranslate` and `Translate`, and with
`BulkEmbed` and `Embed`, alternately, by one client. Prints the ratios of throughput and of the
server's processor time.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from attendant_client import AsyncClient

from bench.arguments import add_server_flags, bench_parser
from bench.loads import LoadResult, in_calls, in_turn
from bench.reporting import figures_of, ratios_table, report
from bench.servers import ONE_OF_EACH_KIND, RunningServer, running_server
from bench.texts import sample_texts

TEXTS_PER_CALL = 32
BULK, CALLS = "bulk", "calls of 32"
UNITS = ["texts/s", "server's CPU ms/text"]


async def measure(
    client: AsyncClient, server: RunningServer, texts: Sequence[str], pairs: int, kind: str
) -> dict[str, list[LoadResult]]:
    """The loads of both ways to call; ``kind`` is ``translate`` or ``embed``."""

    async def bulk() -> int:
        return len([each async for each in getattr(client, f"bulk_{kind}")(texts)])

    async def calls() -> int:
        parts = in_calls(texts, TEXTS_PER_CALL)
        return sum([len(await getattr(client, kind)(part)) for part in parts])

    def timed(send: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[LoadResult]]:
        async def load() -> LoadResult:
            started, cpu_seconds = time.perf_counter(), server.cpu_seconds()
            num_texts = await send()
            return LoadResult(
                seconds=time.perf_counter() - started,
                num_texts=num_texts,
                server_cpu_seconds=server.cpu_seconds() - cpu_seconds,
            )

        return load

    return await in_turn({BULK: timed(bulk), CALLS: timed(calls)}, pairs)


async def run(arguments: argparse.Namespace) -> None:
    """Run the measurements and report them."""
    texts, figures = sample_texts(arguments.data_dir, "mixed", arguments.num_texts), []
    with running_server(ONE_OF_EACH_KIND, *arguments.server_flags) as server:
        async with AsyncClient(server.target, timeout_seconds=600.0) as client:
            for kind in ("translate", "embed"):
                measured = await measure(client, server, texts, arguments.pairs, kind)
                figures += figures_of(kind, measured, UNITS, BULK)
    report("bulk", {"figures": figures}, ratios_table(figures))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--num-texts", type=int, default=2000)
    add_server_flags(parser)
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
