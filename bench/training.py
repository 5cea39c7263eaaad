"""How fast `attendant-export` trains, against a plain PyTorch loop on the same batches.

    python -m bench.training --data-dir DATA_DIR --pairs 5

In turn: ``attendant-export train-translation`` as people run it, for one epoch of some pairs of
Tatoeba from the weights and the tokenizer of the built-in bundle, whose own clock in
``history.csv`` counts the epoch without start and validation; and `plain_trainer` on the same
pairs, sizes, limit and threads. Utilisation is the multiplications and additions that the model
needs for the real tokens, three times those of the forward pass, over the time that they would
take at the rate of the fastest product of two fp32 matrices on the same threads.
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
from tokenizers import Tokenizer

from bench.plain_trainer import Pair, Sizes, train_plainly
from bench.reporting import compare, save_results, spread
from bench.texts import add_data_dir

BUNDLE = Path("bundles/en-de/1")
TRAIN = "tatoeba/tatoeba.en-de.train.tsv.gz"
MATRIX = 2048
"""Rows and columns of the matrices whose product is the peak."""


def flops_per_pair(sizes: Sizes, num_source: int, num_target: int) -> float:
    """Multiplications and additions to learn from one pair: a backward pass is two forward ones.

    Counts the products with weights, and those of attention without what the future hides.
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


def encode_pairs(lines: Sequence[str]) -> list[Pair]:
    """The pairs as the trainer sees them: encoded by the bundle's tokenizer."""
    tokenizer = Tokenizer.from_file(str(BUNDLE / "tokenizer.json"))
    sides = zip(*(line.rstrip("\n").split("\t") for line in lines), strict=True)
    sources, targets = ([e.ids for e in tokenizer.encode_batch(list(side))] for side in sides)
    return list(zip(sources, targets, strict=True))


def train_with_ours(lines: Sequence[str], max_batch_tokens: int, num_threads: int) -> float:
    """Seconds of one epoch of ``attendant-export``, by its own history."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.tsv").write_text("".join(lines), encoding="utf-8")
        (folder / "valid.tsv").write_text(lines[0], encoding="utf-8")
        command = [sys.executable, "-m", "attendant_export", "train-translation", "--device=cpu"]
        command += [f"--data-dir={folder}", "--train=train.tsv", "--valid=valid.tsv"]
        command += [f"--run-dir={folder / 'run'}", f"--init-from={BUNDLE}", "--max-epochs=1"]
        command += [f"--max-batch-tokens={max_batch_tokens}", "--validate-every-steps=1000000"]
        environment = os.environ | {"OMP_NUM_THREADS": str(num_threads)}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        with (folder / "run" / "history.csv").open(encoding="utf-8") as file:
            return 60 * float(next(csv.DictReader(file))["minutes"])


def main() -> None:
    """Measure in turn, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_data_dir(parser)
    parser.add_argument("--pairs", type=int, default=5, help="how often to measure each")
    parser.add_argument("--sentences", type=int, default=8000, help="pairs of sentences an epoch")
    parser.add_argument("--max-batch-tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    lines = sample_pairs(Path(arguments.data_dir) / TRAIN, arguments.sentences)
    encoded, limit = encode_pairs(lines), arguments.max_batch_tokens
    flops = sum(flops_per_pair(Sizes(), len(s), len(t)) for s, t in encoded)
    ours, theirs, peaks = [], [], []
    for _ in range(arguments.pairs):
        peaks.append(sgemm_flops())
        ours.append(len(encoded) / train_with_ours(lines, limit, arguments.threads))
        theirs.append(len(encoded) / train_plainly(Sizes(), encoded, limit))
    per_pair = flops / len(encoded)
    results = {
        "threads": arguments.threads,
        "max_batch_tokens": limit,
        "sentence_pairs": len(encoded),
        "flops_per_sentence_pair": per_pair,
        "sgemm_flops_per_second": spread(peaks),
        "sentence_pairs_per_second": compare(ours, theirs),
        "utilisation": spread([r * per_pair / p for r, p in zip(ours, peaks, strict=True)]),
        "plain_utilisation": spread([r * per_pair / p for r, p in zip(theirs, peaks, strict=True)]),
    }
    comparison = compare(ours, theirs)
    print(f"sentence pairs/s: ours {comparison.ours:.0f}, plain {comparison.theirs:.0f}")
    print(f"ratio of medians {comparison.ratio_of_medians:.2f}, of pairs", end=" ")
    print(f"{comparison.pair_ratios:.2f}")
    print(f"peak of sgemm {spread([p / 1e9 for p in peaks]):.0f} GFLOP/s")
    print(f"utilisation: ours {results['utilisation']:.2f}", end=", ")
    print(f"plain {results['plain_utilisation']:.2f}")
    print(save_results("training", results))


if __name__ == "__main__":
    main()
