"""How fast `attendant-export` trains, and which share of the machine's arithmetic that is.

    python -m bench.training --data-dir DATA_DIR --rounds 5

``attendant-export train-translation`` as people run it, for one epoch of some pairs of Tatoeba from
the weights and the tokenizer of the built-in bundle; its own clock in ``history.csv`` counts the
epoch without start and validation. Utilisation is the multiplications and additions that the model
needs for the real tokens, three times those of the forward pass, over the time that they would
take at the rate of the fastest product of two fp32 matrices on the same threads, which is measured
before each epoch.
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
from collections.abc import Sequence
from pathlib import Path

import torch
from attendant.v1.model_pb2 import TranslationSizes
from attendant_export.models.shapes import transformer
from attendant_manifest.sizes import translation_sizes
from tokenizers import Tokenizer

from bench.arguments import bench_parser
from bench.reporting import report, spread

BUNDLE = Path("bundles/en-de/1")
TRAIN = "tatoeba/tatoeba.en-de.train.tsv.gz"
MATRIX = 2048
"""Rows and columns of the matrices whose product is the peak."""
MAX_BATCH_TOKENS = 2048
NUM_THREADS = len(os.sched_getaffinity(0))


def flops_per_pair(sizes: TranslationSizes, num_source: int, num_target: int) -> float:
    """Multiplications and additions to learn from one pair: a backward pass is two forward ones.

    Counts the products with weights, and those of attention to positions that are not masked.
    """
    d, ff = sizes.d_model, sizes.d_feed_forward
    encoder = num_source * (4 * d * d + 2 * d * ff) + 2 * num_source**2 * d
    self_attention = num_target * 4 * d * d + num_target * (num_target + 1) * d
    cross = num_target * 2 * d * d + num_source * 2 * d * d + 2 * num_target * num_source * d
    decoder = self_attention + cross + num_target * 2 * d * ff
    forward = sizes.num_encoder_layers * encoder + sizes.num_decoder_layers * decoder
    return 3 * 2 * (forward + num_target * d * sizes.vocab_size)


def sgemm_flops(num_times: int = 10) -> float:
    """Multiplications and additions per second of the fastest of some products."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    seconds = []
    for _ in range(num_times):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * MATRIX**3 / min(seconds)


def sample_pairs(path: Path, num_pairs: int) -> list[str]:
    """Lines of the training text, drawn by a seed: the file is sorted by length."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return random.Random(1).sample(list(file), num_pairs)


def mean_flops(lines: Sequence[str]) -> float:
    """Of a pair, encoded as the trainer does: by the bundle's tokenizer."""
    tokenizer = Tokenizer.from_file(str(BUNDLE / "tokenizer.json"))
    sizes = translation_sizes(transformer(tokenizer.get_vocab_size()))
    sides = zip(*(line.rstrip("\n").split("\t") for line in lines), strict=True)
    sources, targets = ([len(e) for e in tokenizer.encode_batch(list(side))] for side in sides)
    return sum(map(lambda s, t: flops_per_pair(sizes, s, t), sources, targets)) / len(lines)


def train(lines: Sequence[str]) -> float:
    """Seconds of one epoch of ``attendant-export``, by its own history."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.tsv").write_text("".join(lines), encoding="utf-8")
        (folder / "valid.tsv").write_text(lines[0], encoding="utf-8")
        command = [sys.executable, "-m", "attendant_export", "train-translation", "--device=cpu"]
        command += [f"--data-dir={folder}", "--train=train.tsv", "--valid=valid.tsv"]
        command += [f"--run-dir={folder / 'run'}", f"--init-from={BUNDLE}", "--max-epochs=1"]
        command += [f"--max-batch-tokens={MAX_BATCH_TOKENS}", "--validate-every-steps=1000000"]
        environment = os.environ | {"OMP_NUM_THREADS": str(NUM_THREADS)}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        with (folder / "run" / "history.csv").open(encoding="utf-8") as file:
            return 60 * float(next(csv.DictReader(file))["minutes"])


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often to measure")
    parser.add_argument("--sentences", type=int, default=8000, help="pairs of sentences an epoch")
    return parser


def main() -> None:
    """Measure and print JSON."""
    arguments = build_parser().parse_args()
    torch.set_num_threads(NUM_THREADS)
    lines = sample_pairs(arguments.data_dir / TRAIN, arguments.sentences)
    speeds, peaks = [], []
    for _ in range(arguments.rounds):
        peaks.append(sgemm_flops())
        speeds.append(len(lines) / train(lines))
    per_pair = mean_flops(lines)
    results = {
        "threads": NUM_THREADS,
        "max_batch_tokens": MAX_BATCH_TOKENS,
        "sentence_pairs": len(lines),
        "flops_per_sentence_pair": per_pair,
        "sgemm_flops_per_second": spread(peaks),
        "sentence_pairs_per_second": spread(speeds),
        "utilisation": spread([s * per_pair / p for s, p in zip(speeds, peaks, strict=True)]),
    }
    report("training", results)


if __name__ == "__main__":
    main()
