"""The texts of the `attendant` command: its arguments, or the lines of a file or standard input.

Each line is decoded separately, so that a bad line is a fault of that line only.
"""

import argparse
import codecs
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

Item = TypeVar("Item")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One input: a text or a pair of texts, or the fault of a line that cannot be read as such."""

    number: int
    """From 1."""
    texts: tuple[str, ...]
    fault: str = ""

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing but white space."""
        return not any(text.strip() for text in self.texts)


@contextmanager
def opened_lines(
    arguments: argparse.Namespace, num_columns: int, skip: int
) -> Iterator[Iterator[Line]]:
    """The inputs of the command after the first `skip`; `num_columns` is 2 for pairs of texts.

    Raises ValueError if there are fewer than `skip`, and OSError for a file that cannot be read.
    """
    if arguments.texts:
        texts = tuple(arguments.texts)
        rows = [texts] if num_columns > 1 else [(text,) for text in texts]
        yield (Line(number, row) for number, row in enumerate(rows, 1))
    elif arguments.input is not None:
        with open(arguments.input, "rb") as file:
            yield _lines(file, num_columns, skip)
    else:
        yield iter(()) if sys.stdin is None else _lines(sys.stdin.buffer, num_columns, skip)


def num_lines(path: str) -> int | None:
    """Number of lines of a file; None for one that can be read only once, such as a pipe."""
    if not Path(path).is_file():
        return None
    last, count = b"", 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            count, last = count + chunk.count(b"\n"), chunk
    return count + (not last.endswith(b"\n") and last != b"")


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut items into lists of `size`, the last of which may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def _lines(file: BinaryIO, num_columns: int, skip: int) -> Iterator[Line]:
    # Only line feeds end lines, so that there are as many lines out as in.
    number = 0
    for number, content in enumerate(file, 1):
        if number > skip:
            yield _line(number, content, num_columns)
    if number < skip:
        raise ValueError(f"the output has {skip} lines, but the input only {number}")


def _line(number: int, content: bytes, num_columns: int) -> Line:
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if number == 1:
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = content.decode("utf-8", "replace")
        return Line(number, (shown,) * num_columns, f"is not UTF-8 at byte {error.start}")
    columns = tuple(text.split("\t")) if num_columns > 1 else (text,)
    if len(columns) == num_columns:
        return Line(number, columns)
    if not text.strip():
        return Line(number, ("",) * num_columns)
    fault = f"has {len(columns)} columns, must have {num_columns}, separated by a tab"
    return Line(number, (text, "")[:num_columns], fault)
