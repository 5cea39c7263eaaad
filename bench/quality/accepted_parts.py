"""Counts the parts of translations, such as elements or copies, that are as a person accepts them.

A file has, on each line, a sentence and then, for each of its parts in order, all accepted forms:
parts are separated by `` ; ``, forms by ``|``.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attendant_client import Client

from bench.arguments import add_target, bench_parser
from bench.reporting import report, table
from bench.servers import given_server


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, and the accepted forms of each of its parts."""

    source: str
    accepted: tuple[tuple[str, ...], ...]


def read_sentences(path: Path) -> list[Sentence]:
    """The sentences of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Sentence(source, tuple(tuple(each.split("|")) for each in accepted.split(" ; ")))
            for source, accepted in csv.reader(
                file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True
            )
        ]


def parts_parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of the command line of a bench."""
    parser = bench_parser(description, reads_data=False)
    add_target(parser)
    parser.add_argument("--model", default="en-de", help="name of an English-German model")
    return parser


def count_parts(
    bench: str,
    parts: str,
    options: argparse.Namespace,
    sentences: Sequence[Sentence],
    right_parts: Callable[[Sentence, str], list[bool]],
    **keywords: Any,
) -> None:
    """Translate the sentences; print how many ``parts`` are right, and the other sentences.

    ``right_parts`` says which parts of a translation are right. ``keywords`` are those of
    `Client.translate`.
    """
    with given_server(options.target) as running, Client(running.target) as client:
        sources = [sentence.source for sentence in sentences]
        found = client.translate(sources, model=options.model, **keywords).raise_for_errors()
    right = [right_parts(s, each.text) for s, each in zip(sentences, found, strict=True)]
    row = {parts: sum(map(len, right)), "right": sum(map(sum, right))}
    wrong = "\n".join(
        f"{sentence.source}\t{each.text}"
        for sentence, each, marks in zip(sentences, found, right, strict=True)
        if not all(marks)
    )
    report(f"{bench}-{options.model}", {"model": options.model, **row}, table([row]), wrong)
