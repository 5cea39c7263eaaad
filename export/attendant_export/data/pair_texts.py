"""The text of sentence pairs in mapped files, without pairs that filters leave out.

Does not depend on tokenizers or models.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attendant_export.data.array_folders import FolderWriter, open_or_build
from attendant_export.data.bad_lines import BadLine, BadLines
from attendant_export.data.duplicates import are_first
from attendant_export.data.pair_filters import DUPLICATES, TextFilters
from attendant_export.data.sequences import Sequences
from attendant_export.data.text_files import digest, files_of, numbered_pairs

FORMAT = 2
"""Version of the files; others are not read."""
BLOCK_PAIRS = 4_000
"""How many pairs are in memory while files are written."""


@dataclass(frozen=True, slots=True)
class PairTexts:
    """Sentence pairs of a file or folder, whose text stays on disk as UTF-8."""

    name: str
    """Name of the file or folder."""
    key: str
    """A hash of all that the text depends on."""
    source: Sequences
    target: Sequences
    lines: NDArray[Any]  # (pairs), the number of the line of each pair in its file
    first_rows: Sequence[tuple[Path, int]]
    """The first pair of each file."""
    left_out: Mapping[str, int]
    """How many lines are left out, by reason: bad ones and those that filters leave out."""
    bad_lines: BadLines

    def __len__(self) -> int:
        return len(self.source)

    def place(self, index: int) -> tuple[Path, int]:
        """The file and line of the pair ``index``."""
        file = next(file for file, start in reversed(self.first_rows) if start <= index)
        return file, int(self.lines[index])

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self.source[index].tobytes().decode(), self.target[index].tobytes().decode()


def open_texts(path: Path, cache_dir: Path, swap: bool, filters: TextFilters) -> PairTexts:
    """The pairs of a file or of all files of a folder, from ``cache_dir`` if they are there.

    Otherwise writes them to a new folder there. Raises as `numbered_pairs`.
    """
    files = files_of(path)
    options = {"swap": swap, "filters": asdict(filters)}
    key = key_of({**options, "files": [(digest(file), file.suffix) for file in files]})
    folder = open_or_build(
        cache_dir / f"text-{FORMAT}-{key}", lambda writer: _write(writer, files, swap, filters)
    )
    facts = folder.facts
    listed = [BadLine(files[file], number, kind) for file, number, kind in facts["bad_lines"]]
    bad_lines = BadLines(Counter(facts["bad_counts"]), listed)
    return PairTexts(
        path.name,
        key,
        folder.sequences("source"),
        folder.sequences("target"),
        folder.arrays["lines"],
        list(zip(files, facts["first_rows"], strict=True)),
        {**bad_lines.counts, **facts["left_out"]},
        bad_lines,
    )


def key_of(content: Mapping[str, Any]) -> str:
    """A hash of JSON values, for the name of a folder."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _write(
    writer: FolderWriter, files: list[Path], swap: bool, filters: TextFilters
) -> dict[str, Any]:
    left_out: Counter[str] = Counter()
    bad_lines, num_kept = BadLines(), Counter[Path]()
    kept = _kept(files, swap, filters, left_out, bad_lines)
    is_last = False
    while not is_last:  # Also writes the arrays of no pairs at all.
        block = list(islice(kept, BLOCK_PAIRS))
        is_last = len(block) < BLOCK_PAIRS
        num_kept.update(file for file, _, _ in block)
        writer.append("lines", np.array([number for _, number, _ in block], np.uint32))
        for name, side in (("source", 0), ("target", 1)):
            texts = [np.frombuffer(pair[side].encode(), np.uint8) for _, _, pair in block]
            writer.append_sequences(name, texts, np.uint8)
    numbers = {file: number for number, file in enumerate(files)}
    return {
        "left_out": dict(left_out),
        "first_rows": list(accumulate((num_kept[file] for file in files[:-1]), initial=0)),
        "bad_counts": dict(bad_lines.counts),
        "bad_lines": [[numbers[line.file], line.number, line.kind] for line in bad_lines.first],
    }


def _kept(
    files: list[Path],
    swap: bool,
    filters: TextFilters,
    left_out: Counter[str],
    bad_lines: BadLines,
) -> Iterator[tuple[Path, int, tuple[str, str]]]:
    """The pairs that no filter leaves out, with their files and lines.

    Counts the other pairs in ``left_out``, and lines that are no pair in ``bad_lines``.
    """
    joined = ("\t".join(pair) for *_, pair in _pairs(files, swap, BadLines()))
    is_first = are_first(joined) if filters.duplicates else None
    for index, found in enumerate(_pairs(files, swap, bad_lines)):
        reason = filters.reason(*found[2])
        if reason is None and is_first is not None and not is_first[index]:
            reason = DUPLICATES
        if reason is None:
            yield found
        else:
            left_out[reason] += 1


def _pairs(
    files: list[Path], swap: bool, bad_lines: BadLines
) -> Iterator[tuple[Path, int, tuple[str, str]]]:
    for file in files:
        for number, pair in numbered_pairs(file, bad_lines, swap):
            yield file, number, pair
