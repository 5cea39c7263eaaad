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
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.quality.accepted_parts import Sentence, count_parts, parts_parser, read_sentences

SENTENCES = Path(__file__).with_name("tagged.en-de.tsv")
_TAGS = re.compile(r"<(/?)([a-z]+)[^>]*>")


@dataclass(frozen=True, slots=True)
class Content:
    """The content of an element, which begins at a start tag."""

    tag: str
    text: str


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


def right_elements(sentence: Sentence, translation: str) -> list[bool]:
    """For each element of the sentence, whether it is around the right words."""
    found = contents(translation)
    return list(_right_elements(sentence, found))


def _right_elements(sentence: Sentence, found: Sequence[Content]) -> Iterator[bool]:
    for element, accepted in zip(contents(sentence.source), sentence.accepted, strict=True):
        these = [each for each in found if each.tag == element.tag]
        yield len(these) == 1 and these[0].text in accepted


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    return parts_parser(__doc__)


def main() -> None:
    """Run the bench, and print a table and the sentences with wrong elements."""
    options = build_parser().parse_args()
    sentences = read_sentences(SENTENCES)
    count_parts("markup", "elements", options, sentences, right_elements, markup="html")


if __name__ == "__main__":
    main()
