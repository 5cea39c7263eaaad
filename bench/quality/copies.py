"""Counts the copied parts, such as addresses and emoji, at right places of a translation.

    python -m bench.quality.copies --target HOST:PORT --model en-de

Starts a server of the built-in bundles if there is no ``--target``, and reads no DATA_DIR.

``copied.en-de.tsv`` has 44 English sentences with 46 parts inside that are copied, since the
built-in models cannot translate them: addresses of pages and persons, emoji and foreign signs. For
each part, in order, it has all accepted places in a German translation: parts are separated by
`` ; ``, places by ``|``. A place is the words next to the part, for which ``*`` stands. The
sentences were written for this bench and are in the public domain (CC0 1.0).
"""

import argparse
import csv
import re
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from attendant_client import Client

from bench.arguments import bench_parser
from bench.reporting import report, table
from bench.servers import RunningServer, running_server

SENTENCES = Path(__file__).with_name("copied.en-de.tsv")
_PARTS = re.compile(r"(?:https://|www\.|\w+@)\S+|[^\x00-\xff]+")
PART = "*"
"""Stands for the copied part in an accepted place."""


@dataclass(frozen=True, slots=True)
class CopyingSentence:
    """A sentence with copied parts, and the accepted places of each of them."""

    source: str
    accepted: tuple[tuple[str, ...], ...]

    @property
    def parts(self) -> list[str]:
        """The parts that are copied, in order."""
        return _PARTS.findall(self.source)


def read_sentences(path: Path = SENTENCES) -> list[CopyingSentence]:
    """The sentences of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            CopyingSentence(source, tuple(tuple(each.split("|")) for each in accepted.split(" ; ")))
            for source, accepted in csv.reader(
                file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True
            )
        ]


def right_parts(sentence: CopyingSentence, translation: str) -> list[bool]:
    """For each copied part of the sentence, whether it is at an accepted place."""
    return [
        any(place.replace(PART, part) in translation for place in places)
        for part, places in zip(sentence.parts, sentence.accepted, strict=True)
    ]


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    parser.add_argument("--target", help="address of a running server; default: start one")
    parser.add_argument("--model", default="en-de", help="name of an English-German model")
    return parser


def main() -> None:
    """Run the bench, and print a table and the sentences with parts at wrong places."""
    options = build_parser().parse_args()
    sentences = read_sentences()
    given = nullcontext(RunningServer(options.target)) if options.target else None
    with given or running_server() as running, Client(running.target) as client:
        sources = [sentence.source for sentence in sentences]
        found = client.translate(sources, model=options.model).raise_for_errors()
    right = [right_parts(s, each.text) for s, each in zip(sentences, found, strict=True)]
    row = {"parts": sum(map(len, right)), "right": sum(map(sum, right))}
    wrong = "\n".join(
        f"{sentence.source}\t{each.text}"
        for sentence, each, marks in zip(sentences, found, right, strict=True)
        if not all(marks)
    )
    report(f"copies-{options.model}", {"model": options.model, **row}, table([row]), wrong)


if __name__ == "__main__":
    main()
