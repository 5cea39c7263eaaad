"""Figures for sizing a server: memory per row, and output tokens per processor second.

    python -m bench.serving.sizing --data-dir DATA_DIR --seconds 60

For each ``--max-rows``, with an equal limit of sentences, starts a server of ``en-de``. Measures
its resident memory before the first call, and the peak after a greedy search with all rows in use
and the longest outputs, and after searches with every beam size. Then sends mixed texts to a server
with default settings and prints output tokens per processor second, which depends on other programs
much less than tokens per second.
"""

import argparse
import asyncio
from collections.abc import Sequence

from attendant_client import Client

from bench.arguments import bench_parser
from bench.loads import closed_loop
from bench.reporting import report, table
from bench.servers import running_server
from bench.texts import sample_texts
from bench.translation.caller import translation_caller

ALL_ROWS = (32, 64, 128, 256)
NUM_TOKENS = 250
NUM_CALLERS = 64
TIMEOUT_SECONDS = 600.0


def memory(max_rows: int, texts: Sequence[str]) -> dict[str, float]:
    """Resident MB of a server with ``max_rows`` rows: idle, and the peaks of greedy and all beams.

    For each beam size, sends as many texts as the rows can hold, with outputs of maximum length.
    """
    found: dict[str, float] = {"max_rows": max_rows}
    flags = (f"--max-rows={max_rows}", f"--max-sentences={max_rows}", "--models=en-de")
    with (
        running_server(*flags, f"--max-request-seconds={TIMEOUT_SECONDS}") as server,
        Client(server.target, timeout_seconds=TIMEOUT_SECONDS) as client,
    ):
        found["idle MB"] = server.resident_bytes() / 1e6
        for name, widths in (("greedy", range(1, 2)), ("all widths", range(1, 9))):
            for width in widths:
                client.translate(
                    texts[: max_rows // width],
                    beam_size=width,
                    min_output_tokens=NUM_TOKENS,
                    max_output_tokens=NUM_TOKENS,
                )
            found[f"{name}, most MB"] = server.peak_resident_bytes() / 1e6
        found["limit of caches MB"] = server.total("attendant_max_cache_bytes") / 1e6
    return found


async def tokens_per_cpu_second(texts: Sequence[str], beam_size: int, seconds: float) -> float:
    """Output tokens per second of processor time of a busy server."""
    with running_server("--models=en-de") as server:
        async with translation_caller(server, beam_size) as caller:
            await closed_loop(caller.send, texts, NUM_CALLERS, seconds=seconds / 10)
            before = server.total("attendant_output_tokens_total"), server.cpu_seconds()
            await closed_loop(caller.send, texts, NUM_CALLERS, seconds=seconds)
            after = server.total("attendant_output_tokens_total"), server.cpu_seconds()
    return (after[0] - before[0]) / (after[1] - before[1])


async def run(arguments: argparse.Namespace) -> None:
    """Run both measurements and report them."""
    long_texts = sample_texts(arguments.data_dir, "long", max(ALL_ROWS))
    rows = [memory(max_rows, long_texts) for max_rows in ALL_ROWS]
    more_rows = rows[-1]["max_rows"] - rows[0]["max_rows"]
    of_a_row = {name: (rows[-1][name] - rows[0][name]) / more_rows for name in rows[0]}
    mixed = sample_texts(arguments.data_dir, "mixed", 1024)
    tokens = {
        f"beam {beam_size}": await tokens_per_cpu_second(mixed, beam_size, arguments.seconds)
        for beam_size in (1, 4)
    }
    results = {"memory": rows, "of_a_further_row": of_a_row, "tokens_per_cpu_second": tokens}
    each_row = of_a_row | {"max_rows": "each further row"}
    per_core = table([{"output tokens for each second of a processor": "", **tokens}])
    report("sizing", results, table([*rows, each_row]), per_core)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of each load")
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
