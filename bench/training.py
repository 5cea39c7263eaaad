"""Training throughput of `attendant-export`, and its utilisation of the machine.

    python -m bench.training --data-dir DATA_DIR --rounds 5 --precisions fp32 bf16
    python -m bench.training --data-dir DATA_DIR --precisions auto --against-plain-loop --busy 2

Runs ``attendant-export train-translation`` for one epoch on a sample of Tatoeba pairs, starting
from the built-in bundle. The time of the epoch, without start and validation, comes from
``history.csv``.
Utilisation is the ratio of two rates. The first is the operations that the model needs for real
tokens, three times those of the forward pass, per second. The second is the fastest fp32 matrix
product on the same threads, measured before each round. Several precisions train in turn.

``--against-plain-loop`` also trains a model of the same sizes as in PyTorch's tutorial
(``bench.rivals.plain_training``), in turn with ours. ``--busy`` keeps processors busy meanwhile,
with as many processes.
"""

import argparse
import csv
import gzip
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attendant.v1.model_pb2 import TranslationSizes
from attendant_export.models.shapes import transformer
from attendant_export.train.device import PRECISIONS
from attendant_manifest.sizes import translation_sizes
from tokenizers import Tokenizer

from bench.arguments import bench_parser
from bench.reporting import report, spread

BUNDLE = Path("bundles/en-de/3")
TRAIN = "tatoeba/tatoeba.en-de.train.tsv.gz"
MATRIX = 2048
"""Rows and columns of the matrices for the peak measurement."""
MAX_BATCH_TOKENS = 2048
NUM_THREADS = len(os.sched_getaffinity(0))


def flops_per_pair(sizes: TranslationSizes, num_source: int, num_target: int) -> float:
    """Operations to train on one pair: three forward passes, since a backward pass is two.

    Counts products with weights, and attention to positions that are not masked.
    """
    d, ff = sizes.d_model, sizes.d_feed_forward
    encoder = num_source * (4 * d * d + 2 * d * ff) + 2 * num_source**2 * d
    self_attention = num_target * 4 * d * d + num_target * (num_target + 1) * d
    cross = num_target * 2 * d * d + num_source * 2 * d * d + 2 * num_target * num_source * d
    decoder = self_attention + cross + num_target * 2 * d * ff
    forward = sizes.num_encoder_layers * encoder + sizes.num_decoder_layers * decoder
    return 3 * 2 * (forward + num_target * d * sizes.vocab_size)


def sgemm_flops(num_times: int = 10) -> float:
    """Operations per second of the fastest of ``num_times`` matrix products."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    seconds = []
    for _ in range(num_times):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * MATRIX**3 / min(seconds)


def sample_pairs(path: Path, num_pairs: int) -> list[str]:
    """A random sample of lines of the training text, which is sorted by length."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return random.Random(1).sample(list(file), num_pairs)


def mean_flops(lines: Sequence[str]) -> float:
    """Mean operations per pair, with the bundle's tokenizer."""
    tokenizer = Tokenizer.from_file(str(BUNDLE / "tokenizer.json"))
    sizes = translation_sizes(transformer(tokenizer.get_vocab_size()))
    sides = zip(*(line.rstrip("\n").split("\t") for line in lines), strict=True)
    sources, targets = ([len(e) for e in tokenizer.encode_batch(list(side))] for side in sides)
    return sum(map(lambda s, t: flops_per_pair(sizes, s, t), sources, targets)) / len(lines)


def train(lines: Sequence[str], precision: str, is_default: bool = False) -> float:
    """Seconds of one epoch of ``attendant-export``, from its history.

    With all threads of the machine or, if ``is_default``, as many as the trainer chooses.
    """
    environment = dict(os.environ)
    if not is_default:
        environment["OMP_NUM_THREADS"] = str(NUM_THREADS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.tsv").write_text("".join(lines), encoding="utf-8")
        (folder / "valid.tsv").write_text(lines[0], encoding="utf-8")
        command = [sys.executable, "-m", "attendant_export", "train-translation", "--device=cpu"]
        command += [f"--data-dir={folder}", "--train=train.tsv", "--valid=valid.tsv"]
        command += [f"--run-dir={folder / 'run'}", f"--init-from={BUNDLE}", "--max-epochs=1"]
        command += [f"--max-batch-tokens={MAX_BATCH_TOKENS}", "--validate-every-steps=1000000"]
        command += [f"--precision={precision}"]
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        with (folder / "run" / "history.csv").open(encoding="utf-8") as file:
            return 60 * float(next(csv.DictReader(file))["minutes"])


def train_plainly(lines: Sequence[str]) -> float:
    """Seconds of one epoch of the plain loop."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".tsv") as file:
        file.writelines(lines)
        file.flush()
        command = [sys.executable, "-m", "bench.rivals.plain_training", file.name]
        command.append(str(BUNDLE / "tokenizer.json"))
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


@contextmanager
def busy_processors(num_processes: int) -> Iterator[None]:
    """Processes that compute all the time."""
    spin = [sys.executable, "-c", "while True: sum(range(10_000))"]
    processes = [subprocess.Popen(spin) for _ in range(num_processes)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements")
    parser.add_argument("--sentences", type=int, default=8000, help="sentence pairs per epoch")
    parser.add_argument(
        "--precisions", nargs="+", default=["fp32"], choices=PRECISIONS, help="what to compare"
    )
    parser.add_argument(
        "--against-plain-loop", action="store_true", help="also train as in PyTorch's tutorial"
    )
    parser.add_argument(
        "--busy", type=int, default=0, metavar="PROCESSES", help="other processes that compute"
    )
    return parser


def measure(arguments: argparse.Namespace, lines: Sequence[str]) -> dict[str, Any]:
    """The figures of all rounds."""
    speeds: dict[str, list[float]] = {each: [] for each in arguments.precisions}
    peaks, plain = [], []
    for _ in range(arguments.rounds):
        peaks.append(sgemm_flops())
        for precision, measured in speeds.items():
            is_default = arguments.against_plain_loop
            measured.append(len(lines) / train(lines, precision, is_default))
        if arguments.against_plain_loop:
            plain.append(len(lines) / train_plainly(lines))
    per_pair = mean_flops(lines)
    figures: dict[str, Any] = {
        "flops_per_sentence_pair": per_pair,
        "sgemm_flops_per_second": spread(peaks),
        "sentence_pairs_per_second": {each: spread(of) for each, of in speeds.items()},
        "utilisation": {
            each: spread([s * per_pair / p for s, p in zip(of, peaks, strict=True)])
            for each, of in speeds.items()
        },
    }
    if plain:
        figures["plain_sentence_pairs_per_second"] = spread(plain)
        figures["against_plain_loop"] = {
            each: spread([s / p for s, p in zip(of, plain, strict=True)])
            for each, of in speeds.items()
        }
    return figures


def main() -> None:
    """Run the bench and print JSON."""
    arguments = build_parser().parse_args()
    torch.set_num_threads(NUM_THREADS)
    lines = sample_pairs(arguments.data_dir / TRAIN, arguments.sentences)
    with busy_processors(arguments.busy):
        figures = measure(arguments, lines)
    sizes = {
        "threads": NUM_THREADS,
        "max_batch_tokens": MAX_BATCH_TOKENS,
        "sentence_pairs": len(lines),
        "busy_processes": arguments.busy,
    }
    report("training", sizes | figures)


if __name__ == "__main__":
    main()
