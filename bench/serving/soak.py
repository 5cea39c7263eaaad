"""Checks whether memory grows under sustained load.

    python -m bench.serving.soak --data-dir DATA_DIR --minutes 10

Translates texts of mixed lengths (64 concurrent calls) and embeds (8 concurrent calls) all the
time. Prints the server's resident memory after every minute, and the ratio of the last to the
first.
"""

import argparse
import asyncio
from typing import Any

from bench.arguments import add_server_flags, bench_parser
from bench.embedding.caller import embedding_caller
from bench.loads import closed_loop, in_calls
from bench.reporting import report
from bench.servers import ONE_OF_EACH_KIND, running_server
from bench.texts import paragraphs, sample_texts
from bench.translation.caller import translation_caller

NUM_TRANSLATIONS, NUM_EMBEDDINGS = 64, 8
NUM_TEXTS = 2048


async def run(arguments: argparse.Namespace) -> None:
    """Load the server for the given number of minutes."""
    texts = sample_texts(arguments.data_dir, "mixed", NUM_TEXTS)
    long_calls = in_calls(paragraphs(arguments.data_dir, NUM_TEXTS), 1)
    minutes: list[dict[str, Any]] = []
    with running_server(ONE_OF_EACH_KIND, *arguments.server_flags) as server:
        async with (
            translation_caller(server, beam_size=1) as translating,
            embedding_caller(server) as embedding,
        ):
            for minute in range(1, arguments.minutes + 1):
                translated, embedded = await asyncio.gather(
                    closed_loop(translating.send, texts, NUM_TRANSLATIONS, seconds=60),
                    closed_loop(embedding.send, long_calls, NUM_EMBEDDINGS, seconds=60),
                )
                found = {
                    "minute": minute,
                    "resident_bytes": server.resident_bytes(),
                    "translated_per_second": translated.texts_per_second,
                    "embedded_per_second": embedded.texts_per_second,
                    "failures": dict(translated.failures + embedded.failures),
                }
                print(found, flush=True)
                minutes.append(found)
    ratio = minutes[-1]["resident_bytes"] / minutes[0]["resident_bytes"]
    last = f"memory after minute {arguments.minutes} over memory after minute 1: {ratio:.3f}"
    report("soak", {"minutes": minutes, "last_over_first": ratio}, last)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    add_server_flags(parser)
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
