"""The texts of the benches: real sentences, sampled with a seed.

``short``: English sentences of the Tatoeba test. ``long``: sentences from paragraphs of ``mlm/``,
which have a long tail of lengths. ``mixed``: three short sentences for each long one, shuffled.
``government``: sentences of digital.gov. Paths are relative to DATA_DIR.
"""

import gzip
import random
import re
from collections.abc import Iterator
from pathlib import Path

TATOEBA_TEST = "tatoeba/tatoeba.en-de.test.tsv.gz"
FRENCH_TEST = "tatoeba/tatoeba.en-fr.test.tsv.gz"
GOVERNMENT = "mlm/en.digitalgov.txt.gz"
PARAGRAPHS = (GOVERNMENT, "mlm/en.novels-1880-1930.txt.gz")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’]?\s+")
LONG_WORDS = range(3, 61)
"""Limits of the length of a sentence from paragraphs. Longer ones are lists and tables."""

KINDS = ("short", "long", "mixed", "government")


def sample_texts(data_dir: Path, kind: str, num_texts: int, seed: int = 1) -> list[str]:
    """``num_texts`` texts of one of `KINDS`, reproducible by the seed."""
    if kind == "short":
        return _sample(list(tatoeba_sentences(data_dir)), num_texts, seed)
    if kind == "long":
        return _sample(paragraph_sentences(data_dir), num_texts, seed)
    if kind == "government":
        return _sample(list(_sentences(data_dir / GOVERNMENT)), num_texts, seed)
    num_long = num_texts // 4
    texts = sample_texts(data_dir, "short", num_texts - num_long, seed)
    texts += sample_texts(data_dir, "long", num_long, seed)
    random.Random(seed).shuffle(texts)
    return texts


def _sample(texts: list[str], num_texts: int, seed: int) -> list[str]:
    """Sample without repetition, if there are enough texts."""
    rng = random.Random(seed)
    rounds = [rng.sample(texts, len(texts)) for _ in range(-(-num_texts // len(texts)))]
    return [text for shuffled in rounds for text in shuffled][:num_texts]


def tatoeba_sentences(data_dir: Path) -> dict[str, list[str]]:
    """The English sentences of the Tatoeba test, each with all German references."""
    return read_references(data_dir / TATOEBA_TEST)


def read_references(path: Path, swap: bool = False) -> dict[str, list[str]]:
    """All references of each source sentence in a TSV file; ``swap`` exchanges the columns."""
    references: dict[str, list[str]] = {}
    for line in _lines(path):
        source, target = reversed(line.split("\t")) if swap else line.split("\t")
        references.setdefault(source, []).append(target)
    return references


def paragraphs(data_dir: Path, num_texts: int, seed: int = 1) -> list[str]:
    """Whole English paragraphs of at most 200 words."""
    texts = [
        text
        for name in PARAGRAPHS
        for text in _lines(data_dir / name)
        if 0 < len(text.split()) <= 200
    ]
    return _sample(texts, num_texts, seed)


def paragraph_sentences(data_dir: Path) -> list[str]:
    """The sentences of all English paragraphs, equally many from each file."""
    by_file = [list(_sentences(data_dir / name)) for name in PARAGRAPHS]
    fewest = min(map(len, by_file))
    return [text for texts in by_file for text in random.Random(0).sample(texts, fewest)]


def _sentences(path: Path) -> Iterator[str]:
    for line in _lines(path):
        for sentence in SENTENCE_END.split(line):
            if len(sentence.split()) in LONG_WORDS:
                yield sentence


def _lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\n")
