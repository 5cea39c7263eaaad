"""Fill of decoding steps while texts wait.

    python -m bench.serving.step_fill --data-dir DATA_DIR

Sends 200 concurrent requests of mixed length to a server with 16 rows, 8 for each of two workers.
Fill is the share of occupied rows over all steps that began while texts waited. Greedy search may
decode tokens after EOS before it detects EOS; these rows count as occupied.
"""

import argparse
import asyncio
import random
from pathlib import Path

from bench.arguments import bench_parser
from bench.loads import closed_loop
from bench.reporting import report, spread
from bench.servers import running_server
from bench.texts import tatoeba_sentences
from bench.translation.caller import translation_caller

SERVER_FLAGS = ("--max-rows=16", "--num-workers=2", "--models=en-de")
NUM_REQUESTS = 200


def mixed_texts(data_dir: Path, seed: int = 1) -> list[str]:
    """Test sentences of 3 to about 60 words; half of them join several sentences."""
    rng = random.Random(seed)
    sentences = list(tatoeba_sentences(data_dir))
    return [
        " ".join(rng.sample(sentences, rng.choice([1, 1, 1, 2, 3, 5]))) for _ in range(NUM_REQUESTS)
    ]


async def run(arguments: argparse.Namespace) -> None:
    """Warm up, measure and report."""
    texts = mixed_texts(arguments.data_dir)
    fills, speeds = [], []
    with running_server(*SERVER_FLAGS) as server:
        async with translation_caller(server, beam_size=1) as caller:
            for _ in range(1 + arguments.rounds):
                rows = server.total("attendant_saturated_step_rows_total")
                max_rows = server.total("attendant_saturated_step_max_rows_total")
                result = await closed_loop(caller.send, texts, NUM_REQUESTS)
                rows = server.total("attendant_saturated_step_rows_total") - rows
                max_rows = server.total("attendant_saturated_step_max_rows_total") - max_rows
                fills.append(rows / max_rows)
                speeds.append(result.outputs_per_second)
    report("step_fill", {"fill": spread(fills[1:]), "output_tokens/s": spread(speeds[1:])})


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
