"""Measures an imported student of Bergamot against Bergamot's own engine, on the same texts.

    python -m bench.students --bundle my-bundles/enpt/1 --model MODEL_FOLDER --texts TEXTS \\
        --bergamot-python PYTHON --pairs 6 --server-flags "--shortlists auto"

``TEXTS`` is a file, such as FLORES. ``MODEL_FOLDER`` is what the bundle was imported from, and
``PYTHON`` a Python 3.10 with bergamot==0.4.5 (``pip install --no-deps``). Two loads, measured in
turn:

- all texts: ours from 64 callers of one text over gRPC; Bergamot's in one call in its own process,
  by two workers, in the batches of the model's configuration
- one text at a time: ours over gRPC; Bergamot's in its own process, with one worker

Both split texts into sentences and search greedily. Bergamot always has its shortlist.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.arguments import add_server_flags, bench_parser
from bench.loads import LoadResult, Refused, closed_loop, in_turn
from bench.reporting import compare, report, table
from bench.servers import flags_for, running_server
from bench.translation.caller import Caller, translation_caller

CONCURRENCY, NUM_WORKERS = 64, 2
ENGINE = Path(__file__).parent / "rivals/bergamot_engine.py"


class Bergamot:
    """The engine in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._answer()

    def translate(self, texts: Sequence[str]) -> tuple[float, list[str]]:
        """The seconds of one call, and the translations."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["texts"]

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("Bergamot's engine ended")
        return json.loads(line)


@contextmanager
def running_bergamot(python: str, model: Path, num_workers: int) -> Iterator[Bergamot]:
    """Bergamot's engine with a model, ready when the block begins."""
    command = [python, str(ENGINE), f"--model={model}", f"--workers={num_workers}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Bergamot(process)
        finally:
            process.terminate()


async def our_words_per_second(caller: Caller, texts: Sequence[str], num_words: int) -> float:
    """Words of the source per second, with all callers at once. Raises Refused for a failure."""
    return num_words / (await _load(caller, texts, CONCURRENCY)).seconds


async def our_median_seconds(caller: Caller, texts: Sequence[str]) -> float:
    """Median seconds of one text at a time. Raises Refused for a failure."""
    return (await _load(caller, texts, 1)).latency(50)


async def _load(caller: Caller, texts: Sequence[str], concurrency: int) -> LoadResult:
    result = await closed_loop(caller.send, texts, concurrency)
    if result.failures:
        raise Refused(str(result.failures))
    return result


async def measure(arguments: argparse.Namespace, texts: Sequence[str]) -> dict[str, list[float]]:
    """The values of each system and load, one for each pair."""
    num_words = sum(len(text.split()) for text in texts)
    single = texts[:: max(1, len(texts) // arguments.single_texts)]
    given = arguments.bergamot_python, arguments.model
    with (
        running_server(*flags_for(arguments.bundle), *arguments.server_flags) as server,
        running_bergamot(*given, NUM_WORKERS) as batched,
        running_bergamot(*given, 1) as alone,
    ):
        async with translation_caller(server, beam_size=1) as caller:

            async def their_words_per_second() -> float:
                return num_words / batched.translate(texts)[0]

            async def their_median_seconds() -> float:
                return statistics.median(alone.translate([text])[0] for text in single)

            return await in_turn(
                {
                    "our words/s": lambda: our_words_per_second(caller, texts, num_words),
                    "their words/s": their_words_per_second,
                    "our p50": lambda: our_median_seconds(caller, single),
                    "their p50": their_median_seconds,
                },
                arguments.pairs,
            )


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    parser.add_argument("--bundle", type=Path, required=True, help="the imported bundle")
    parser.add_argument("--model", type=Path, required=True, help="folder that was imported")
    parser.add_argument("--texts", type=Path, required=True, help="file with a text in each line")
    parser.add_argument("--bergamot-python", required=True, help="interpreter that has bergamot")
    parser.add_argument("--num-texts", type=int, default=300, help="texts to translate")
    parser.add_argument("--single-texts", type=int, default=30, help="texts of one at a time")
    parser.add_argument("--pairs", type=int, default=6, help="measurements of each system")
    add_server_flags(parser)
    return parser


def main() -> None:
    """Run the bench and print a table."""
    arguments = build_parser().parse_args()
    texts = arguments.texts.read_text(encoding="utf-8").splitlines()[: arguments.num_texts]
    measured = asyncio.run(measure(arguments, texts))
    compared = {
        "words/s, 64 callers": compare(measured["our words/s"], measured["their words/s"]),
        "one text, p50 seconds": compare(measured["our p50"], measured["their p50"]),
    }
    rows = [
        {
            "load": load,
            "ours": figure.ours.median,
            "Bergamot": figure.theirs.median,
            "ratio of medians": f"{figure.ratio_of_medians:.2f}",
            "ratios of pairs (quartiles; extremes)": f"{figure.pair_ratios:.2f}",
        }
        for load, figure in compared.items()
    ]
    report("students", compared, table(rows))


if __name__ == "__main__":
    main()
