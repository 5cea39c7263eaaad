"""Counts the right translations of the phrases that a newcomer types first.

    python -m bench.quality.first_contact --target HOST:PORT --model en-de

Starts a server of the built-in bundles if there is no ``--target``, and reads no DATA_DIR.

``first_contact.en-de.tsv`` has 200 English phrases in ten groups, each with all accepted German
translations. They were written for this bench and are in the public domain (CC0 1.0). A
translation is right if it equals an accepted one after white space at both ends is stripped:
capitals and punctuation count. "You" may be familiar or polite, singular or plural. A clause whose
final punctuation is missing may get it, a single word may not. `almost` counts the translations
that differ from an accepted one in capitals and final punctuation only.

Half of each group is held out: do not choose training data or options by these phrases. Their wrong
translations are printed only with ``--show-held-out``.
"""

import argparse
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attendant_client import Client

from bench.arguments import add_target, bench_parser
from bench.quality.translation import translate
from bench.reporting import report, table
from bench.servers import given_server

PHRASES = Path(__file__).with_name("first_contact.en-de.tsv")
PARTS = (OPEN, HELD_OUT) = ("open", "held-out")
BEAM_SIZES = {"greedy": 1, "beam4": 4}
ALL = "all"


@dataclass(frozen=True, slots=True)
class Phrase:
    """A source, its accepted translations, its group, and its part, one of `PARTS`."""

    source: str
    accepted: tuple[str, ...]
    group: str
    part: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The translation of a phrase."""

    phrase: Phrase
    text: str

    @property
    def is_right(self) -> bool:
        """Whether the translation is an accepted one."""
        return self.text.strip() in self.phrase.accepted

    @property
    def is_almost_right(self) -> bool:
        """Whether only capitals and final punctuation make it wrong."""
        words = {words_of(accepted) for accepted in self.phrase.accepted}
        return not self.is_right and words_of(self.text) in words


def words_of(text: str) -> str:
    """The text without capitals and without the punctuation at its end."""
    return re.sub(r"[.!?…\s]+$", "", text.strip()).casefold()


def read_phrases(path: Path = PHRASES) -> list[Phrase]:
    """The phrases of a file: a header, then source, accepted (``|`` between), group and part."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        return [
            Phrase(row["source"], tuple(row["accepted"].split("|")), row["group"], row["part"])
            for row in rows
        ]


def counts(answers: Sequence[Answer]) -> dict[str, dict[str, int]]:
    """The numbers of right, of almost right and of all answers: by group, by part, and of all."""
    keys = dict.fromkeys([*(answer.phrase.group for answer in answers), *PARTS, ALL])
    found = {}
    for key in keys:
        these = [a for a in answers if key in (a.phrase.group, a.phrase.part, ALL)]
        found[key] = {
            "right": sum(a.is_right for a in these),
            "almost": sum(a.is_almost_right for a in these),
            "phrases": len(these),
        }
    return found


def counts_table(by_search: dict[str, dict[str, dict[str, int]]]) -> str:
    """A row for each group and part; for each search, the right and the almost right answers."""
    by_group = next(iter(by_search.values()))
    rows = []
    for group, numbers in by_group.items():
        row: dict[str, object] = {"phrases": group, "number": numbers["phrases"]}
        for search, found in by_search.items():
            row |= {search: found[group]["right"], f"{search}, almost": found[group]["almost"]}
        rows.append(row)
    return table(rows)


def wrong_lines(answers: Sequence[Answer], parts: Sequence[str]) -> str:
    """A line for each wrong answer: its group, source, translation, and an accepted one."""
    return "\n".join(
        f"{a.phrase.group}\t{a.phrase.source}\t{a.text}\t{a.phrase.accepted[0]}"
        for a in answers
        if not a.is_right and a.phrase.part in parts
    )


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    add_target(parser)
    parser.add_argument("--model", default="en-de", help="name of an English-German model")
    parser.add_argument(
        "--show-held-out", action="store_true", help="also print wrong answers that are held out"
    )
    return parser


def measure(client: Client, model: str, phrases: Sequence[Phrase]) -> dict[str, list[Answer]]:
    """The translations of the phrases by each search. Raises the first error of a phrase."""
    sources = [phrase.source for phrase in phrases]
    return {
        search: [
            Answer(phrase, text)
            for phrase, text in zip(
                phrases, translate(client, sources, beam_size, model), strict=True
            )
        ]
        for search, beam_size in BEAM_SIZES.items()
    }


def main() -> None:
    """Run the bench, and print a table and the wrong translations."""
    options = build_parser().parse_args()
    with given_server(options.target) as running, Client(running.target) as client:
        answers = measure(client, options.model, read_phrases())
    found = {search: counts(these) for search, these in answers.items()}
    shown = PARTS if options.show_held_out else (OPEN,)
    wrong = [
        f"wrong, {search}:\n{wrong_lines(these, shown)}\n" for search, these in answers.items()
    ]
    results: dict[str, Any] = {"model": options.model, "counts": found}
    report(f"first-contact-{options.model}", results, counts_table(found), *wrong)


if __name__ == "__main__":
    main()
