"""Writes the English texts whose vectors the teacher of ``bert-en-de`` gives, one text in a line.

    python export/data/write_teacher_texts.py DATA_DIR FOLDER

Leaves out texts of the validation and test sets, whatever their case and punctuation, and those of
the training pairs, which the trainer reads anyway.
"""

import csv
import gzip
import random
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

NUM_TEXTS = {"captions": None, "tatoeba": 15_000, "dialogues": 8_000, "novels": 5_000}
"""Texts of each file; None for all."""
END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def opened(path: Path) -> TextIO:
    """A compressed text file."""
    return gzip.open(path, "rt", encoding="utf-8")


def first_column(path: Path) -> Iterator[str]:
    """The English side of a file of pairs."""
    with opened(path) as lines:
        yield from (line.split("\t")[0].strip() for line in lines)


def captions(path: Path) -> Iterator[str]:
    """Both sentences of each pair of STS-B."""
    with opened(path) as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield from (row[column].strip() for column in ("sentence1", "sentence2"))


def dialogues(path: Path) -> Iterator[str]:
    """Utterances of a usual length."""
    with opened(path) as lines:
        yield from (line.strip() for line in lines if 15 < len(line) < 120)


def novels(path: Path) -> Iterator[str]:
    """Whole sentences of a usual length."""
    with opened(path) as lines:
        for line in lines:
            for sentence in END_OF_SENTENCE.split(line.strip()):
                is_whole = sentence[:1].isupper() and sentence[-1:] in ".!?"
                if is_whole and 20 < len(sentence) < 140:
                    yield sentence


def normalized(text: str) -> str:
    """A text without case and punctuation."""
    return re.sub(r"\W+", " ", text.lower()).strip()


def held_out(data: Path) -> set[str]:
    """The texts of all validation and test sets, normalized."""
    found: set[str] = set()
    for part in ("valid", "test"):
        for pair in ("en-de", "en-fr"):
            path = data / f"tatoeba/tatoeba.{pair}.{part}.tsv.gz"
            found.update(map(normalized, first_column(path)))
    for part in ("dev", "test"):
        path = data / f"stsb-open/stsb-open.en.{part}.tsv.gz"
        found.update(map(normalized, captions(path)))
    return found


def main(data: Path, folder: Path) -> None:
    """Write all files."""
    sources: dict[str, Iterable[str]] = {
        "captions": captions(data / "stsb-open/stsb-open.en.train.tsv.gz"),
        "tatoeba": first_column(data / "tatoeba/tatoeba.en-fr.train.tsv.gz"),
        "dialogues": dialogues(data / "mlm/en.sgd-dialogues.txt.gz"),
        "novels": novels(data / "mlm/en.novels-1880-1930.txt.gz"),
    }
    excluded = held_out(data)
    known = set(first_column(data / "tatoeba/tatoeba.en-de.train.tsv.gz"))
    generator = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in sources.items():
        kept = [
            text
            for text in dict.fromkeys(texts)
            if normalized(text) and normalized(text) not in excluded and text not in known
        ]
        generator.shuffle(kept)
        kept = kept[: NUM_TEXTS[name]]
        known.update(kept)
        (folder / f"{name}.txt").write_text("".join(f"{text}\n" for text in kept), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
