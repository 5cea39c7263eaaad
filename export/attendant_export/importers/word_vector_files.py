"""Reads files of word vectors: text of word2vec, fastText and GloVe, and binary files of word2vec.

A file may be compressed by gzip. Text has a line for each word: the word and its numbers, separated
by spaces. Files of word2vec begin with a line that states the number of words and the dimension;
those of GloVe do not. A binary file has each word, a space, and its numbers as little-endian fp32.
"""

import gzip
import logging
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attendant_export.data.word_tokenizer import UNKNOWN, UNKNOWN_ID, is_word
from attendant_export.importers.checkpoint import CheckpointError

logger = logging.getLogger(__name__)

GZIP_MAGIC, FASTTEXT_MAGIC = b"\x1f\x8b", b"\xba\x16\x4f\x2f"
MAX_GZIP_RATIO = 1032
"""The most bytes that a byte of a compressed file can stand for."""
HEADER = re.compile(rb"(\d{1,12})[ \t](\d{1,9})\s*")
"""The number of words and the dimension."""
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
MAX_LINE = 1 << 20
"""Longest line, in bytes."""
MAX_WORD = 4096
"""Longest word of a binary file, in bytes."""
CHUNK = 1 << 20
SCALAR = np.dtype("<f4")

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the beginning of a file says about the rest."""

    dimension: int
    count: int | None
    """The number of words that the first line states; None if there is no such line."""
    is_binary: bool


class WordTable:
    """The words of a file with their vectors, in the order of the file, after `UNKNOWN`."""

    def __init__(self, path: Path, capacity: int, dimension: int) -> None:
        self._path = path
        self._rows = np.zeros((capacity + 1, dimension), np.float32)
        self.ids: dict[str, int] = {UNKNOWN: UNKNOWN_ID}
        """The row of each word. That of `UNKNOWN` has zeros."""
        self._num_repeated = self._num_spaced = 0

    @property
    def vectors(self) -> FloatArray:
        """The vectors: (words, dimension)."""
        return self._rows[: len(self.ids)]

    def add(self, place: str, word: bytes, vector: FloatArray) -> None:
        """Add a word that is neither there nor has white space. Raises CheckpointError.

        ``place`` is its place in the file, for messages.
        """
        if not np.isfinite(vector).all():
            raise CheckpointError(f"{self._path}, {place}: a number is not finite in fp32")
        try:
            text = word.decode()
        except UnicodeDecodeError:
            raise CheckpointError(f"{self._path}, {place}: the word is not UTF-8") from None
        if text in self.ids:
            self._num_repeated += 1
        elif not is_word(text):
            self._num_spaced += 1
        else:
            self._rows[len(self.ids)] = vector
            self.ids[text] = len(self.ids)

    def warn_of_left_out(self) -> None:
        """Log how many words were left out."""
        if self._num_repeated:
            logger.warning(
                "%s: %d words are there already; the first vector of a word is kept",
                *(self._path, self._num_repeated),
            )
        if self._num_spaced:
            logger.warning(
                "%s: %d words are empty or have white space, and are left out",
                *(self._path, self._num_spaced),
            )


def read_word_table(path: Path, max_words: int | None = None) -> WordTable:
    """The words of a file and their vectors; only the first ``max_words``, if given.

    Reads one word after the other, into a table that is allocated once. Of words that are there
    twice, the first one is kept, as gensim does. Raises CheckpointError that names the line or word
    for files that are damaged or not of word vectors.
    """
    with _reasons(path):
        layout = read_layout(path)
        count = _count_lines(path, max_words) if layout.count is None else layout.count
        wanted = count if max_words is None else min(count, max_words)
        table = WordTable(path, wanted, layout.dimension)
        with _open(path) as file:
            read = _binary_words if layout.is_binary else _text_words
            for place, word, vector in read(path, file, layout, wanted):
                table.add(place, word, vector)
            if wanted == layout.count:
                _check_end(path, file, layout)
    if len(table.ids) == 1:
        raise CheckpointError(f"{path} has no words that texts can have")
    table.warn_of_left_out()
    return table


@contextmanager
def _reasons(path: Path) -> Iterator[None]:
    """Raises CheckpointError instead of the errors of damaged compressed files."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CheckpointError(f"{path}: the compressed file is damaged: {error}") from error


def _open(path: Path) -> BufferedIOBase:
    with path.open("rb") as file:
        is_compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return gzip.GzipFile(path) if is_compressed else path.open("rb")


@contextmanager
def uncompressed(path: Path) -> Iterator[Path]:
    """The path of the same file without compression, which may be a temporary one."""
    with _reasons(path), _open(path) as file:
        if not isinstance(file, gzip.GzipFile):
            yield path
            return
        with tempfile.NamedTemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            yield Path(copy.name)


def read_layout(path: Path) -> Layout:
    """What the beginning of a file says. Raises CheckpointError if it is of another kind."""
    with _open(path) as file:
        beginning = file.read(MAX_LINE)
        is_compressed = isinstance(file, gzip.GzipFile)
    if not beginning.strip():
        raise CheckpointError(f"{path} is empty")
    first, _, rest = beginning.partition(b"\n")
    if header := HEADER.fullmatch(first):
        count, dimension = int(header[1]), int(header[2])
        is_binary = _is_binary(rest, dimension)
        _check_size(path, count, dimension, is_binary, is_compressed)
        return Layout(dimension, count, is_binary)
    dimension = _num_numbers(first)
    if dimension == 0 or CONTROL.search(first):
        if beginning.startswith(FASTTEXT_MAGIC):
            raise CheckpointError(
                f"{path} is a model of fastText, which is not supported: give its .vec file"
            )
        raise CheckpointError(
            f"{path} is no file of word vectors: its first line is neither the number of words and "
            "the dimension, nor a word and its numbers, separated by spaces"
        )
    return Layout(dimension, None, is_binary=False)


def _num_numbers(line: bytes) -> int:
    """The number of numbers at the end of a line, after the word."""
    fields = _fields(line)
    numbers = 0
    while numbers < len(fields) - 1 and _is_number(fields[-1 - numbers]):
        numbers += 1
    return numbers


def _is_binary(rest: bytes, dimension: int) -> bool:
    """Whether the bytes after the first line are no text."""
    if _num_numbers(rest.partition(b"\n")[0]) >= dimension:
        return False
    if CONTROL.search(rest):
        return True
    try:
        rest[:-3].decode()  # The end may be cut in a character.
    except UnicodeDecodeError as error:
        return error.end < len(rest) - 6
    return False


def _check_size(
    path: Path, count: int, dimension: int, is_binary: bool, is_compressed: bool
) -> None:
    """Raise CheckpointError for a header that the size of the file contradicts."""
    if count == 0 or dimension == 0:
        raise CheckpointError(f"{path}, line 1: {count} words of dimension {dimension}, want more")
    size = path.stat().st_size * (MAX_GZIP_RATIO if is_compressed else 1)
    if count * dimension * (SCALAR.itemsize if is_binary else 2) > size:
        raise CheckpointError(
            f"{path} is too short for the {count} words of dimension {dimension} that line 1 states"
        )


def _count_lines(path: Path, most: int | None) -> int:
    """The number of lines, or one that is not below ``most``."""
    count, last = 0, b"\n"
    with _open(path) as file:
        while (most is None or count < most) and (chunk := file.read(CHUNK)):
            count += chunk.count(b"\n")
            last = chunk[-1:]
    return count + (last != b"\n")


def _text_words(
    path: Path, file: BufferedIOBase, layout: Layout, wanted: int
) -> Iterator[tuple[str, bytes, FloatArray]]:
    """The place, word and vector of each of the first ``wanted`` words."""
    first = 1 if layout.count is None else 2
    if layout.count is not None:
        file.readline()
    for number in range(first, first + wanted):
        place = f"line {number}"
        line = file.readline(MAX_LINE)
        if not line:
            raise CheckpointError(
                f"{path} ends before {place}: line 1 states {layout.count} words, but there are "
                f"{number - first}"
            )
        if len(line) == MAX_LINE:
            raise CheckpointError(f"{path}, {place} has more than {MAX_LINE} bytes")
        word, numbers = _split_line(path, place, line, layout.dimension)
        yield place, word, _vector(path, place, numbers)


def _fields(line: bytes) -> list[bytes]:
    return line.rstrip(b" \r\n").split(b" ")


def _split_line(path: Path, place: str, line: bytes, dimension: int) -> tuple[bytes, list[bytes]]:
    """The word of a line, which may have spaces, and its numbers. Raises CheckpointError."""
    fields = _fields(line)
    before = fields[1:-dimension]
    if len(fields) <= dimension or (before and all(map(_is_number, before))):
        raise CheckpointError(
            f"{path}, {place} has {len(fields) - 1} numbers after the word, want {dimension}"
        )
    return b" ".join(fields[:-dimension]), fields[-dimension:]


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _vector(path: Path, place: str, numbers: list[bytes]) -> FloatArray:
    try:
        values = np.array([float(number) for number in numbers])
    except ValueError:
        wrong = next(number for number in numbers if not _is_number(number))
        text = wrong[:40].decode(errors="replace")
        raise CheckpointError(f"{path}, {place}: {text!r} is not a number") from None
    with np.errstate(over="ignore"):  # Infinite values are refused with the place.
        return values.astype(np.float32)


def _binary_words(
    path: Path, file: BufferedIOBase, layout: Layout, wanted: int
) -> Iterator[tuple[str, bytes, FloatArray]]:
    """The place, word and vector of each of the first ``wanted`` words."""
    file.readline()
    size = layout.dimension * SCALAR.itemsize
    for number in range(1, wanted + 1):
        place = f"word {number}"
        word = _binary_word(path, place, file)
        content = file.read(size)
        if len(content) < size:
            raise CheckpointError(f"{path} ends in {place} of {layout.count}")
        yield place, word, np.frombuffer(content, SCALAR)


def _binary_word(path: Path, place: str, file: BufferedIOBase) -> bytes:
    """The bytes before the next space, without the line end after the vector before."""
    word = bytearray()
    while (byte := file.read(1)) != b" ":
        if not byte:
            raise CheckpointError(f"{path} ends before {place}, or within it")
        if len(word) == MAX_WORD:
            raise CheckpointError(f"{path}, {place} has more than {MAX_WORD} bytes")
        word += byte
    return bytes(word.lstrip(b"\n"))


def _check_end(path: Path, file: BufferedIOBase, layout: Layout) -> None:
    """Raise CheckpointError if there is more than the first line states."""
    if file.read(MAX_WORD).strip():
        raise CheckpointError(f"{path} has more than the {layout.count} words that line 1 states")
