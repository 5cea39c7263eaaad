"""Lines, pairs and documents of text files. Does not depend on tokenizers or models."""

import bz2
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from attendant_export.data.bad_lines import EMPTY, NO_PAIR, NOT_UTF8, BadLines

BYTE_ORDER_MARK = "\ufeff"
_COMPRESSED: dict[str, Callable[[Path], BufferedIOBase]] = {
    ".gz": gzip.GzipFile,
    ".xz": lzma.LZMAFile,
    ".bz2": bz2.BZ2File,
}
"""What opens a compressed file, by the suffix of its name."""


def files_of(path: Path) -> list[Path]:
    """The text files of a source: the file itself, or all files of a folder, sorted by name.

    Skips hidden files and all subfolders. Raises ValueError for a folder without files.
    """
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    if not found:
        raise ValueError(f"{path}: the folder has no files")
    return found


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def numbered_lines(path: Path, bad_lines: BadLines) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 text file with their numbers from 1, without line ends.

    Names ending in ``.gz``, ``.xz`` and ``.bz2`` mean compressed text. A byte order mark is left
    out. Lines that are not UTF-8 are added to ``bad_lines`` instead. Raises ValueError that names a
    damaged or unsupported compressed file, and OSError if the file cannot be read.
    """
    if path.suffix == ".zst":
        raise ValueError(f"{path}: .zst is not supported, only {', '.join(_COMPRESSED)} and plain")
    number = 0
    try:
        with _COMPRESSED.get(path.suffix, _open_plain)(path) as file:
            for number, line in enumerate(file, start=1):
                try:
                    text = line.decode()
                except UnicodeDecodeError:
                    bad_lines.add(path, number, NOT_UTF8)
                    continue
                text = text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text
                yield number, text.rstrip("\r\n")
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # The system's errors have a number; those of the libraries have none.
        raise ValueError(f"{path}: damaged after line {number}: {error}") from error


def _open_plain(path: Path) -> BufferedIOBase:
    return path.open("rb")


def numbered_pairs(
    path: Path, bad_lines: BadLines, swap: bool = False
) -> Iterator[tuple[int, tuple[str, str]]]:
    """Pairs of a file with ``source<TAB>target`` lines, with the numbers of their lines.

    ``swap`` gives (target, source). Lines that are no pair, or of which a side is empty or blank,
    are added to ``bad_lines`` instead. Raises as `numbered_lines`.
    """
    for number, line in numbered_lines(path, bad_lines):
        columns = line.split("\t") if line else ["", ""]
        if len(columns) != 2:
            bad_lines.add(path, number, NO_PAIR)
        elif not all(column.strip() for column in columns):
            bad_lines.add(path, number, EMPTY)
        else:
            yield number, (columns[1], columns[0]) if swap else (columns[0], columns[1])


def read_pairs(path: Path, swap: bool = False) -> list[tuple[str, str]]:
    """All pairs of a file, as `numbered_pairs`.

    Raises ValueError that lists bad lines, and for a file without pairs.
    """
    bad_lines = BadLines()
    pairs = [pair for _, pair in numbered_pairs(path, bad_lines, swap)]
    bad_lines.refuse()
    if not pairs:
        raise ValueError(f"{path} has no pairs of texts")
    return pairs


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank. Raises ValueError that lists bad lines."""
    bad_lines = BadLines()
    lines = [line for _, line in numbered_lines(path, bad_lines) if line.strip()]
    bad_lines.refuse()
    return lines


def group_references(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """All targets of each source, in order of first appearance."""
    references: dict[str, list[str]] = {}
    for source, target in pairs:
        references.setdefault(source, []).append(target)
    return references


def read_documents(path: Path, bad_lines: BadLines) -> Iterator[list[str]]:
    """Paragraphs of each document of a file with an empty line between documents.

    Adds lines to ``bad_lines`` and raises as `numbered_lines`.
    """
    document: list[str] = []
    for _, line in numbered_lines(path, bad_lines):
        if line:
            document.append(line)
        elif document:
            yield document
            document = []
    if document:
        yield document


def join_paragraphs(document: Iterable[str], max_characters: int) -> list[str]:
    """Join neighbouring paragraphs into passages of at most ``max_characters``.

    A longer paragraph is a passage of its own.
    """
    passages: list[str] = []
    for paragraph in document:
        if passages and len(passages[-1]) + len(paragraph) < max_characters:
            passages[-1] += " " + paragraph
        else:
            passages.append(paragraph)
    return passages


def draw_texts(texts: Sequence[str], max_characters: int, rng: np.random.Generator) -> list[str]:
    """Sample texts without replacement until they have ``max_characters`` in total."""
    shuffled = [texts[i] for i in rng.permutation(len(texts))]
    total = np.cumsum([len(text) for text in shuffled])
    return shuffled[: int(np.searchsorted(total, max_characters)) + 1]
