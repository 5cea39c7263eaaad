"""Measures the error of word alignments on pairs that were aligned by hand.

    python -m bench.quality.alignment --target HOST:PORT --model en-de

Starts a server of the built-in bundles if there is no ``--target``, and reads no DATA_DIR.

``aligned_words.en-de.tsv`` has 60 English sentences, a German translation of each, and the pairs of
words that belong together: places in the lists of words and signs, from 0, the English one first.
All pairs are sure. The sentences were written and aligned for this bench and are in the public
domain (CC0 1.0). Score aligns the given translations. The alignment error rate (Och and Ney, 2003)
is then 1 - 2 |found and right| / (|found| + |right|). Of the links of an answer, those of the
server's choice count; with ``--model de-en``, the sentences change sides.
"""

import argparse
import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attendant_client import Client, WordAlignment

from bench.arguments import add_target, bench_parser
from bench.reporting import report, table
from bench.servers import given_server

PAIRS = Path(__file__).with_name("aligned_words.en-de.tsv")
_WORDS = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")

Links = frozenset[tuple[int, int]]
"""Pairs of places of words: of the source, of the target."""


@dataclass(frozen=True, slots=True)
class AlignedPair:
    """A sentence and its translation with the words that belong together."""

    source: str
    target: str
    links: Links

    def swapped(self) -> "AlignedPair":
        """The pair in the other direction."""
        return AlignedPair(self.target, self.source, frozenset((j, i) for i, j in self.links))


@dataclass(frozen=True, slots=True)
class AlignmentQuality:
    """The agreement of found links with the right ones."""

    num_found: int
    num_right: int
    num_common: int

    @property
    def error_rate(self) -> float:
        """The alignment error rate, 0 for equal sets."""
        return 1 - 2 * self.num_common / max(1, self.num_found + self.num_right)

    @property
    def precision(self) -> float:
        """The share of right links among the found ones."""
        return self.num_common / max(1, self.num_found)

    @property
    def recall(self) -> float:
        """The share of found links among the right ones."""
        return self.num_common / max(1, self.num_right)


def read_pairs(path: Path = PAIRS) -> list[AlignedPair]:
    """The pairs of a file: source, target, and links such as ``0-0 1-2``."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            AlignedPair(source, target, frozenset(map(_link, links.split())))
            for source, target, links in csv.reader(
                file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True
            )
        ]


def _link(text: str) -> tuple[int, int]:
    source, target = text.split("-")
    return int(source), int(target)


def found_links(pair: AlignedPair, alignments: Iterable[WordAlignment]) -> Links:
    """The links of an answer as places of words."""
    sources, targets = _places(pair.source), _places(pair.target)
    return frozenset(
        (sources[link.source_start], targets[link.target_start]) for link in alignments
    )


def _places(text: str) -> dict[int, int]:
    return {match.start(): place for place, match in enumerate(_WORDS.finditer(text))}


def quality(right: Sequence[Links], found: Sequence[Links]) -> AlignmentQuality:
    """The agreement over all pairs."""
    return AlignmentQuality(
        sum(map(len, found)),
        sum(map(len, right)),
        sum(len(a & b) for a, b in zip(right, found, strict=True)),
    )


def measure(client: Client, model: str, pairs: Sequence[AlignedPair]) -> AlignmentQuality:
    """The quality of the alignments of one model. Raises the first error of a pair."""
    scored = client.score(
        [(pair.source, pair.target) for pair in pairs], model=model, return_alignments=True
    ).raise_for_errors()
    found = [found_links(pair, score.alignments) for pair, score in zip(pairs, scored, strict=True)]
    return quality([pair.links for pair in pairs], found)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    add_target(parser)
    parser.add_argument("--model", default="en-de", help="name of a model: en-de or de-en")
    return parser


def main() -> None:
    """Run the bench and print a table."""
    options = build_parser().parse_args()
    pairs = read_pairs()
    if options.model.startswith("de-en"):
        pairs = [pair.swapped() for pair in pairs]
    with given_server(options.target) as running, Client(running.target) as client:
        found = measure(client, options.model, pairs)
    row = {
        "pairs": len(pairs),
        "links": found.num_right,
        "error rate": round(found.error_rate, 3),
        "precision": round(found.precision, 3),
        "recall": round(found.recall, 3),
    }
    report(f"alignment-{options.model}", {"model": options.model, **row}, table([row]))


if __name__ == "__main__":
    main()
