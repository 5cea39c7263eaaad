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
import re
from pathlib import Path

from bench.quality.accepted_parts import Sentence, count_parts, parts_parser, read_sentences

SENTENCES = Path(__file__).with_name("copied.en-de.tsv")
_PARTS = re.compile(r"(?:https://|www\.|\w+@)\S+|[^\x00-\xff]+")
PART = "*"
"""Stands for the copied part in an accepted place."""


def copied_parts(source: str) -> list[str]:
    """The parts of a sentence that are copied, in order."""
    return _PARTS.findall(source)


def right_parts(sentence: Sentence, translation: str) -> list[bool]:
    """For each copied part of the sentence, whether it is at an accepted place."""
    return [
        any(place.replace(PART, part) in translation for place in places)
        for part, places in zip(copied_parts(sentence.source), sentence.accepted, strict=True)
    ]


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    return parts_parser(__doc__)


def main() -> None:
    """Run the bench, and print a table and the sentences with wrong parts."""
    options = build_parser().parse_args()
    sentences = read_sentences(SENTENCES)
    count_parts("copies", "parts", options, sentences, right_parts)


if __name__ == "__main__":
    main()
