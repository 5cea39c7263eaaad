"""Compares attendant with other embedding engines, on the same weights and interleaved in time.

    python -m bench.embedding --data-dir DATA_DIR --model minilm --precision fp32 \\
        --rivals sentence-transformers,bare-loop --loads saturated,single --pairs 20

Every engine is loaded once and idles while the others are measured. All use two threads, or as many
as there are processors. A round measures each engine once; the first round is discarded. Prints
ratios of medians, quartiles and extremes of the ratios within rounds, and cosines to
sentence-transformers in fp32. Saves all results in ``build/bench/``.

Loads:
saturated    all texts as fast as possible: in-process engines get one call and sort by length,
             attendant gets calls of many texts
concurrent   64 callers with one text each; sentence-transformers cannot batch across callers, so it
             gets all texts in one call
single       one text at a time, median latency
poisson      Poisson arrivals at 80 % of the rival's throughput with 64 callers; p50, p99
"""

import argparse
import asyncio
from contextlib import AsyncExitStack
from typing import Any

from bench.arguments import bench_parser, some_of
from bench.embedding.contest import Contest, cosines
from bench.embedding.systems import REFERENCE, RIVALS, start
from bench.models.build import built_bundle
from bench.reporting import OURS, ratios_table, report, table
from bench.texts import paragraphs

NUM_TEXTS = {"minilm": 512, "bert-base": 256}
"""Fewer texts would give engines that sort into batches of 32 more padding."""
NUM_COSINE_TEXTS = 128
LOADS = ("saturated", "concurrent", "single", "poisson")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--model", choices=NUM_TEXTS, default="minilm")
    parser.add_argument(
        "--precision", choices=("fp32", "int8"), default="fp32", help="precision of attendant"
    )
    default = "sentence-transformers,bare-loop"
    parser.add_argument("--rivals", type=some_of(*RIVALS), default=default)
    parser.add_argument("--loads", type=some_of(*LOADS), default="saturated,single")
    parser.add_argument("--pairs", type=int, default=20, help="measured rounds")
    parser.add_argument("--num-texts", type=int, help="texts per round; default: by model size")
    return parser


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start all systems and run the selected loads."""
    bundle = built_bundle(arguments.model, arguments.data_dir)
    num_texts = arguments.num_texts or NUM_TEXTS[arguments.model]
    texts = paragraphs(arguments.data_dir, num_texts)
    async with AsyncExitStack() as stack:
        systems = {
            name: await stack.enter_async_context(start(name, bundle, arguments.precision))
            for name in dict.fromkeys([OURS, REFERENCE, *arguments.rivals])
        }
        sample = texts[:NUM_COSINE_TEXTS]
        vectors = {name: await system.vectors(sample) for name, system in systems.items()}
        compared = {name: cosines(found, vectors[REFERENCE]) for name, found in vectors.items()}
        wanted = {n: s for n, s in systems.items() if n == OURS or n in arguments.rivals}
        contest = Contest(wanted, texts, arguments.pairs)
        for load in arguments.loads:
            await getattr(contest, load)()
    return {"num_texts": num_texts, "cosines": compared, "figures": contest.figures}


def main() -> None:
    """Run the bench, print and save the results."""
    arguments = build_parser().parse_args()
    results = asyncio.run(measure(arguments))
    to_reference = [
        {f"cosine to {REFERENCE}": name, "mean": f"{mean:.7f}", "least": f"{least:.7f}"}
        for name, (mean, least) in results["cosines"].items()
    ]
    name = f"embedding-{arguments.model}-{arguments.precision}"
    report(name, results, ratios_table(results["figures"]), table(to_reference))


if __name__ == "__main__":
    main()
