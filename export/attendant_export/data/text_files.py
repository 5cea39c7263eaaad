"""Lines, pairs and documents of text files. Does not depend on tokenizers or models."""

import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 text file without line ends; a name ending in ``.gz`` means gzip."""
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\r\n")


def read_pairs(path: Path, swap: bool = False) -> list[tuple[str, str]]:
    """Pairs of a file with ``source<TAB>target`` lines; ``swap`` gives (target, source).

    Raises ValueError that names a line without exactly two non-empty columns.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) != 2 or not all(columns):
            raise ValueError(f"{path}:{number}: want two tab-separated texts, got {len(columns)}")
        pairs.append((columns[1], columns[0]) if swap else (columns[0], columns[1]))
    return pairs


def group_references(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """All targets of each source, in order of first appearance."""
    references: dict[str, list[str]] = {}
    for source, target in pairs:
        references.setdefault(source, []).append(target)
    return references


def read_documents(path: Path) -> Iterator[list[str]]:
    """Paragraphs of each document of a file with an empty line between documents."""
    document: list[str] = []
    for line in read_lines(path):
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
