"""What to plan a server with: memory for the rows it has, and tokens for the time of a processor.

    python -m bench.sizing --data-dir DATA_DIR --seconds 60

For each ``--max-rows``, with as many sentences, a server of ``en-de``: its resident memory before
the first call, and after all rows have been in use, with the longest outputs that the model has, in
greedy search and then in searches of every width. Then mixed texts at a server with the defaults:
output tokens over the processor time that the server took, which other programs on the machine
change much less than they change tokens a second.
"""

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

from attendant_client import AsyncClient

from bench.loads import closed_loop
from bench.reporting import markdown_table, save_results
from bench.serving import RunningServer, running_server
from bench.texts import add_data_dir, sample_texts
from bench.translation_engines import connected

ALL_ROWS = (32, 64, 128, 256)
BEAM_SIZES = range(1, 9)
NUM_TOKENS = 250
NUM_CALLERS = 64
TIMEOUT_SECONDS = 600.0


async def fill_rows(server: RunningServer, texts: Sequence[str], beam_sizes: Sequence[int]) -> None:
    """Decode as many texts at once as rows hold, to the longest, for each of these widths."""
    async with AsyncClient(server.target, timeout_seconds=TIMEOUT_SECONDS) as client:
        for beam_size in beam_sizes:
            await client.translate(
                texts[: max(len(texts) // beam_size, 1)],
                beam_size=beam_size,
                min_output_tokens=NUM_TOKENS,
                max_output_tokens=NUM_TOKENS,
            )


async def memory(max_rows: int, texts: Sequence[str]) -> dict[str, Any]:
    """Resident bytes of a server with so many rows: idle, greedy, and with all widths."""
    found: dict[str, Any] = {"max_rows": max_rows}
    flags = (f"--max-rows={max_rows}", f"--max-sentences={max_rows}", "--models=en-de")
    with running_server(*flags, f"--max-request-seconds={TIMEOUT_SECONDS}") as server:
        found["idle_bytes"] = server.resident_bytes()
        for name, widths in (("greedy", [1]), ("all_widths", list(BEAM_SIZES))):
            await fill_rows(server, texts[:max_rows], widths)
            found[f"{name}_bytes"] = server.resident_bytes()
            found[f"{name}_cache_bytes"] = server.total("attendant_cache_bytes")
    return found


async def tokens_per_cpu_second(texts: Sequence[str], beam_size: int, seconds: float) -> float:
    """Output tokens of a busy server over the processor time that it has taken."""
    with running_server("--models=en-de") as server:
        async with connected(server, beam_size) as caller:
            await closed_loop(caller.send, texts, NUM_CALLERS, seconds=seconds / 10)
            before = server.total("attendant_output_tokens_total"), server.cpu_seconds()
            await closed_loop(caller.send, texts, NUM_CALLERS, seconds=seconds)
            after = server.total("attendant_output_tokens_total"), server.cpu_seconds()
    return (after[0] - before[0]) / (after[1] - before[1])


async def run(arguments: argparse.Namespace) -> None:
    """Measure both, and print tables."""
    long_texts = sample_texts(arguments.data_dir, "long", max(ALL_ROWS))
    rows = [await memory(max_rows, long_texts) for max_rows in ALL_ROWS]
    names = [name for name in rows[0] if name != "max_rows"]
    print(
        markdown_table(
            ["rows", *names], [[r["max_rows"], *(_mb(r[n]) for n in names)] for r in rows]
        )
    )
    first, last = rows[0], rows[-1]
    more_rows = last["max_rows"] - first["max_rows"]
    for name in names:
        print(f"{name} for each further row: {_mb((last[name] - first[name]) / more_rows)} MB")
    mixed = sample_texts(arguments.data_dir, "mixed", 1024)
    tokens = {
        f"beam {beam_size}": await tokens_per_cpu_second(mixed, beam_size, arguments.seconds)
        for beam_size in (1, 4)
    }
    print("output tokens for each second of a processor:", tokens)
    print(save_results("sizing", {"memory": rows, "tokens_per_cpu_second": tokens}))


def _mb(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.2f}"


def main() -> None:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_data_dir(parser)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
