"""Counts the inline elements that a translation has around the right words.

    python -m bench.quality.markup --target HOST:PORT --model en-de

Starts a server of the built-in bundles if there is no ``--target``, and reads no DATA_DIR.

``tagged.en-de.tsv`` has 50 English sentences in HTML with 72 inline elements and, for each element
in order of its start tag, all accepted contents of this element in a German translation: elements
are separated by `` ; ``, contents by ``|``. The sentences were written for this bench and are in
the public domain (CC0 1.0). An element is right if it occurs once and has an accepted content, so a
wrong translation of its words counts as wrong, too.
"""

import argparse
import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from attendant_client import Client

from bench.arguments import bench_parser
from bench.reporting import report, table
from bench.servers import RunningServer, running_server

SENTENCES = Path(__file__).with_name("tagged.en-de.tsv")
_TAGS = re.compile(r"<(/?)([a-z]+)[^>]*>")


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """A sentence with markup, and the accepted contents of each of its elements."""

    source: str
    accepted: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Content:
    """The content of an element, which begins at a start tag."""

    tag: str
    text: str


def read_sentences(path: Path = SENTENCES) -> list[TaggedSentence]:
    """The sentences of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            TaggedSentence(source, tuple(tuple(each.split("|")) for each in accepted.split(" ; ")))
            for source, accepted in csv.reader(
                file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True
            )
        ]


def contents(text: str) -> list[Content]:
    """The content of each element, in order of the start tags."""
    opened: list[tuple[int, str, int]] = []
    found: dict[int, Content] = {}
    for number, tag in enumerate(_TAGS.finditer(text)):
        if not tag.group(1):
            opened.append((number, tag.group(), tag.end()))
        elif opened:
            place, start_tag, start = opened.pop()
            found[place] = Content(start_tag, text[start : tag.start()])
    return [found[place] for place in sorted(found)]


def right_elements(sentence: TaggedSentence, translation: str) -> list[bool]:
    """For each element of the sentence, whether it is around the right words."""
    found = contents(translation)
    return list(_right_elements(sentence, found))


def _right_elements(sentence: TaggedSentence, found: Sequence[Content]) -> Iterator[bool]:
    for element, accepted in zip(contents(sentence.source), sentence.accepted, strict=True):
        these = [each for each in found if each.tag == element.tag]
        yield len(these) == 1 and these[0].text in accepted


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    parser.add_argument("--target", help="address of a running server; default: start one")
    parser.add_argument("--model", default="en-de", help="name of an English-German model")
    return parser


def main() -> None:
    """Run the bench, and print a table and the sentences with wrong elements."""
    options = build_parser().parse_args()
    sentences = read_sentences()
    given = nullcontext(RunningServer(options.target)) if options.target else None
    with given or running_server() as running, Client(running.target) as client:
        sources = [sentence.source for sentence in sentences]
        found = client.translate(sources, model=options.model, markup="html").raise_for_errors()
    right = [right_elements(s, each.text) for s, each in zip(sentences, found, strict=True)]
    row = {"elements": sum(map(len, right)), "right": sum(map(sum, right))}
    wrong = "\n".join(
        f"{sentence.source}\t{each.text}"
        for sentence, each, marks in zip(sentences, found, right, strict=True)
        if not all(marks)
    )
    report(f"markup-{options.model}", {"model": options.model, **row}, table([row]), wrong)


if __name__ == "__main__":
    main()
