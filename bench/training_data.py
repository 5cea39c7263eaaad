"""Measures memory and start time of the training data of translation models.

    python -m bench.training_data --pairs 1000000

Generates pairs of simple text, and opens them twice as ``attendant-export train-translation`` does,
each time in a process of its own. The first start encodes them to files, the second only maps the
files. Reports the seconds until the first and until the last batch of an epoch, and by how many
bytes per pair the resident memory of the process grows: all of it, and without the pages of mapped
files, which the system takes back when memory is short.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from attendant_export.data.pair_tokenizer import PairTokenizer
from attendant_export.data.tokenizer import load_tokenizer
from attendant_export.data.translation_data import PairSource, TranslationData, TranslationTexts

from bench.arguments import bench_parser
from bench.reporting import report

TOKENIZER = Path("bundles/en-de/3/tokenizer.json")
MAX_BATCH_TOKENS = 4096
WORDS = [
    "the",
    "a",
    "dog",
    "house",
    "sees",
    "finds",
    "old",
    "small",
    "der",
    "Hund",
    "sieht",
    "alte",
]


def generate_lines(num_pairs: int) -> Iterator[str]:
    """Lines of pairs of 3 to 14 words, some of which are numbers."""
    rng = np.random.default_rng(1)
    for number in range(num_pairs):
        sides = (
            " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(2, 14)))
            for _ in range(2)
        )
        yield "\t".join(f"{side} {number}." for side in sides) + "\n"


def resident_bytes() -> dict[str, int]:
    """The resident memory of this process, and its part that belongs to no file."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"all": "VmRSS", "without_mapped_files": "RssAnon"}
    return {name: 1024 * int(fields[field].split()[0]) for name, field in names.items()}


def measure(path: Path, cache_dir: Path) -> dict[str, object]:
    """Open the pairs and draw one epoch of batches."""
    tokenizer = load_tokenizer(TOKENIZER)
    tokenizer.encode_batch_fast(["a"] * 1000)  # Starts its threads.
    before, started = resident_bytes(), time.perf_counter()
    data = TranslationData((PairSource(path),), path)
    dataset = TranslationTexts(data, cache_dir).dataset(PairTokenizer.of_run(tokenizer))
    num_batches = dataset.num_batches(MAX_BATCH_TOKENS)
    batches = dataset.batches(MAX_BATCH_TOKENS, np.random.default_rng(1))
    next(batches)
    first, at_first = time.perf_counter() - started, resident_bytes()
    most = dict.fromkeys(before, 0)
    for _ in batches:
        most = {name: max(most[name], now) for name, now in resident_bytes().items()}
    return {
        "batches": num_batches,
        "seconds_to_first_batch": first,
        "seconds_to_last_batch": time.perf_counter() - started,
        "bytes_a_pair_at_first_batch": _grown(before, at_first, len(dataset)),
        "bytes_a_pair_at_most_later": _grown(before, most, len(dataset)),
    }


def _grown(before: dict[str, int], after: dict[str, int], num_pairs: int) -> dict[str, float]:
    return {name: (after[name] - before[name]) / num_pairs for name in before}


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    parser.add_argument("--pairs", type=int, default=1_000_000, help="number of pairs")
    return parser


def main() -> None:
    """Run the bench and print JSON."""
    num_pairs = build_parser().parse_args().pairs
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "train.tsv")
        with path.open("w", encoding="utf-8") as file:
            file.writelines(generate_lines(num_pairs))
        results: dict[str, object] = {"pairs": num_pairs, "text_bytes": path.stat().st_size}
        for start in ("first_start", "second_start"):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results[start] = pool.apply(measure, (path, Path(name, "cache")))
        files = [each for each in Path(name, "cache").rglob("*") if each.is_file()]
        results["cache_bytes"] = sum(each.stat().st_size for each in files)
    report("training_data", results)


if __name__ == "__main__":
    main()
