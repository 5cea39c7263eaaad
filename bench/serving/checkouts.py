"""This checkout's server against that of another checkout, such as the last release.

    python -m bench.serving.checkouts --data-dir DATA_DIR --other CHECKOUT --pairs 20

``CHECKOUT`` is a folder with another commit of this repository in which ``make .venv/.installed``
has run. Each server has the built-in bundles of its own checkout. Loads both alternately with the
same calls of one text each, over one connection for each load, and prints ratios of throughput,
latency, and the server's processor time. A ratio of 1 means that nothing has changed.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.arguments import add_server_flags, bench_parser, some_of
from bench.loads import LoadResult, Send
from bench.reporting import Figure, figures_of, ratios_table, report
from bench.servers import ONE_OF_EACH_KIND, RunningServer, running_server
from bench.serving.overhead import Start, load_server, measure_in_turn

THIS, OTHER = "this checkout", "other checkout"
UNITS = ["texts/s", "p50 ms", "p99 ms", "server's CPU ms/text"]


async def run(arguments: argparse.Namespace) -> None:
    """Run the measurements and report them."""
    other = arguments.other.resolve()
    bundles = f"--bundles={other / 'bundles'}"
    start = partial(running_server, ONE_OF_EACH_KIND, *arguments.server_flags)
    starts = {THIS: start, OTHER: partial(start, bundles, python=other / ".venv/bin/python")}
    figures: list[Figure] = []
    for load in arguments.loads:
        for num_callers in arguments.callers:
            figures += await _compare(load, num_callers, starts, arguments)
    report("checkouts", {"figures": figures}, ratios_table(figures))


async def _compare(
    load: str, num_callers: int, starts: Mapping[str, Start], arguments: argparse.Namespace
) -> list[Figure]:
    def measured(
        _: str, server: RunningServer, send: Send[str], texts: Sequence[str]
    ) -> Awaitable[LoadResult]:
        return load_server(server, send, texts, num_callers, arguments.seconds)

    results = await measure_in_turn(load, starts, arguments, measured)
    return figures_of(f"{load}, {num_callers} callers", results, UNITS, THIS)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--other", type=Path, required=True, help="folder of the other checkout")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    loads = some_of("translate", "embed")
    parser.add_argument("--loads", type=loads, default=["translate"], help="translate, embed")
    parser.add_argument("--callers", type=int, nargs="+", default=[64, 1], help="calls at a time")
    add_server_flags(parser)
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
