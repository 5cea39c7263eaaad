"""The texts of the `attendant` command: its arguments, or the lines of files or standard input.

Each line is decoded separately, so that a bad line is a fault of that line only.
"""

import argparse
import codecs
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import islice
from pathlib import Path
from typing import cast

from attendant_client.input_files import (
    MAX_LINE_BYTES,
    InputFile,
    input_files,
    opened,
    raw_lines,
)

MAX_BATCH_CHARACTERS = 100_000
"""No further line joins a batch that has this many characters: a server takes no more at a time."""


@dataclass(frozen=True, slots=True)
class Line:
    """One input: a text or a pair of texts, or the fault of a line that cannot be read as such."""

    number: int
    """From 1, in its file."""
    texts: tuple[str, ...]
    fault: str = ""
    file: int = 0
    """The index of its file."""

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing but white space."""
        return not any(text.strip() for text in self.texts)

    @property
    def num_characters(self) -> int:
        """Characters of all its texts."""
        return sum(map(len, self.texts))


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the input: the line after the first `num_lines` of a file."""

    file: int = 0
    num_lines: int = 0


def files_of(arguments: argparse.Namespace) -> list[InputFile]:
    """The files of the input; empty if the input is no file. Raises as `input_files`."""
    return [] if arguments.input is None else input_files(Path(arguments.input))


def read_lines(
    arguments: argparse.Namespace,
    num_columns: int,
    files: Sequence[InputFile],
    begin: Place = Place(),
) -> Iterator[Line]:
    """The inputs of the command from a place on; `num_columns` is 2 for pairs of texts.

    Raises ValueError if that place is behind the end of its file, and OSError for a file that
    cannot be read.
    """
    if arguments.texts:
        texts = tuple(arguments.texts)
        rows = [texts] if num_columns > 1 else [(text,) for text in texts]
        yield from (Line(number, row) for number, row in enumerate(rows, 1))
    elif files:
        for index, each in enumerate(files[begin.file :], begin.file):
            skip = begin.num_lines if index == begin.file else 0
            with opened(each.path) as file:
                yield from _lines(file, num_columns, skip, index)
    elif sys.stdin is not None:
        source = cast(BufferedIOBase, sys.stdin.buffer)
        yield from _lines(source, num_columns, begin.num_lines, 0)


def batches(lines: Iterable[Line], size: int) -> Iterator[list[Line]]:
    """Cut lines into lists of at most `size` lines, fewer if they are long."""
    remaining = iter(lines)
    while batch := list(islice(remaining, 1)):
        num_characters = batch[0].num_characters
        while len(batch) < size and num_characters < MAX_BATCH_CHARACTERS:
            line = next(remaining, None)
            if line is None:
                break
            batch.append(line)
            num_characters += line.num_characters
        yield batch


def _lines(file: BufferedIOBase, num_columns: int, skip: int, index: int) -> Iterator[Line]:
    number = 0
    for number, (content, num_bytes) in enumerate(raw_lines(file), 1):
        if number <= skip:
            continue
        if num_bytes > MAX_LINE_BYTES:
            fault = f"has {num_bytes} bytes, at most {MAX_LINE_BYTES}"
            yield Line(number, ("",) * num_columns, fault, index)
        else:
            yield _line(number, content, num_columns, index)
    if number < skip:
        raise ValueError(f"the output has {skip} lines, but the input only {number}")


def _line(number: int, content: bytes, num_columns: int, index: int) -> Line:
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if number == 1:
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = content.decode("utf-8", "replace")
        fault = f"is not UTF-8 at byte {error.start}"
        return Line(number, (shown,) * num_columns, fault, index)
    columns = tuple(text.split("\t")) if num_columns > 1 else (text,)
    if len(columns) == num_columns:
        return Line(number, columns, file=index)
    if not text.strip():
        return Line(number, ("",) * num_columns, file=index)
    fault = f"has {len(columns)} columns, must have {num_columns}, separated by a tab"
    return Line(number, (text, "")[:num_columns], fault, index)
