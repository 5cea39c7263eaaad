"""The text of sentence pairs in mapped files, without pairs that filters leave out.

Does not depend on tokenizers or models.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attendant_export.data.array_folders import FolderWriter, open_or_build
from attendant_export.data.pair_filters import DUPLICATES, TextFilters
from attendant_export.data.sequences import Sequences
from attendant_export.data.text_files import files_of, iter_pairs

FORMAT = 1
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
    left_out: Mapping[str, int]
    """How many pairs filters left out, by reason."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self.source[index].tobytes().decode(), self.target[index].tobytes().decode()


def open_texts(path: Path, cache_dir: Path, swap: bool, filters: TextFilters) -> PairTexts:
    """The pairs of a file or of all files of a folder, from ``cache_dir`` if they are there.

    Otherwise writes them to a new folder there. Raises ValueError as `iter_pairs`.
    """
    files = files_of(path)
    options = {"format": FORMAT, "swap": swap, "filters": asdict(filters)}
    key = key_of({**options, "files": [(_digest(file), file.suffix) for file in files]})
    folder = open_or_build(
        cache_dir / f"text-{key}", lambda writer: _write(writer, files, swap, filters)
    )
    source, target = folder.sequences("source"), folder.sequences("target")
    return PairTexts(path.name, key, source, target, folder.facts["left_out"])


def key_of(content: Mapping[str, Any]) -> str:
    """A hash of JSON values, for the name of a folder."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(
    writer: FolderWriter, files: list[Path], swap: bool, filters: TextFilters
) -> dict[str, Any]:
    left_out: Counter[str] = Counter()
    kept = _kept(files, swap, filters, left_out)
    is_last = False
    while not is_last:  # Also writes the arrays of no pairs at all.
        block = list(islice(kept, BLOCK_PAIRS))
        is_last = len(block) < BLOCK_PAIRS
        for name, side in (("source", 0), ("target", 1)):
            texts = [np.frombuffer(pair[side].encode(), np.uint8) for pair in block]
            writer.append_sequences(name, texts, np.uint8)
    return {"left_out": dict(left_out)}


def _kept(
    files: list[Path], swap: bool, filters: TextFilters, left_out: Counter[str]
) -> Iterator[tuple[str, str]]:
    """The pairs that no filter leaves out; counts the others in ``left_out``."""
    is_first = _are_first(_pairs(files, swap)) if filters.duplicates else None
    for number, pair in enumerate(_pairs(files, swap)):
        reason = filters.reason(*pair)
        if reason is None and is_first is not None and not is_first[number]:
            reason = DUPLICATES
        if reason is None:
            yield pair
        else:
            left_out[reason] += 1


def _pairs(files: list[Path], swap: bool) -> Iterator[tuple[str, str]]:
    return chain.from_iterable(iter_pairs(file, swap) for file in files)


def _are_first(pairs: Iterator[tuple[str, str]]) -> NDArray[np.bool_]:
    """Whether each pair is the first one with its 64-bit hash, in 24 bytes a pair."""
    hashes = np.fromiter(map(_hash, pairs), np.uint64)
    is_first = np.zeros(len(hashes), bool)
    is_first[np.unique(hashes, return_index=True)[1]] = True
    return is_first


def _hash(pair: tuple[str, str]) -> int:
    return int.from_bytes(hashlib.blake2b("\t".join(pair).encode(), digest_size=8).digest())
