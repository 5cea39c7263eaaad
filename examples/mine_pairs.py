"""Finds sentences of two files that are translations of each other.

    python examples/mine_pairs.py english.txt german.txt > pairs.tsv

Each file has one sentence on each line, in any order; some may have no translation. A line of the
output has the score, the first sentence and the second sentence, best pair first. The score is the
ratio margin: the cosine of a pair, divided by the mean cosine of both sentences to their nearest
neighbours in the other file. A pair must be each other's best. Raise --min-score for fewer and
better pairs. All cosines are in memory: 20,000 lines in each file need about 5 GB.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from attendant_client import AttendantError, Client

NUM_NEIGHBOURS = 4


def margins(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The ratio margin of each pair, shape (first, second), of unit vectors in rows."""
    cosines = first @ second.T
    by_first, by_second = (
        np.sort(each, axis=1)[:, -NUM_NEIGHBOURS:].mean(1) for each in (cosines, cosines.T)
    )
    return np.asarray(cosines / ((by_first[:, None] + by_second) / 2))


def mine(scores: np.ndarray, min_score: float) -> Iterator[tuple[float, int, int]]:
    """The score and both indices of each pair that is each other's best, best pair first."""
    best_second, best_first = scores.argmax(1), scores.argmax(0)
    best = scores.max(1)
    for i in np.argsort(-best, kind="stable"):
        if best_first[best_second[i]] == i and best[i] >= min_score:
            yield float(best[i]), int(i), int(best_second[i])


def read_sentences(path: Path) -> list[str]:
    """The lines of a file that are not blank, each once."""
    lines = map(str.strip, path.read_text(encoding="utf-8-sig").splitlines())
    sentences = list(dict.fromkeys(line for line in lines if line))
    return sentences or sys.exit(f"{path} has no sentences")


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description="Finds translations in two files.")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--min-score", type=float, default=1.06)
    parser.add_argument("--target", default="localhost:50051")
    options = parser.parse_args()
    first, second = read_sentences(options.first), read_sentences(options.second)
    try:
        with Client(options.target) as client:
            vectors = [
                client.embed(sentences, normalize=True).raise_for_errors().vectors
                for sentences in (first, second)
            ]
    except AttendantError as error:
        sys.exit(str(error))
    for score, i, k in mine(margins(*vectors), options.min_score):
        print(f"{score:.3f}\t{first[i]}\t{second[k]}")


if __name__ == "__main__":
    main()
