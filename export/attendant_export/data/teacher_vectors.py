"""A teacher's vectors of texts, computed in blocks and mapped from files. Knows no models."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from attendant_export.data.array_folders import ArrayFolder, FolderWriter, open_or_build

EmbedTexts = Callable[[Sequence[str]], NDArray[np.float16]]
"""Returns the vectors (texts, width) of texts, of length 1."""

BLOCK_TEXTS = 4096
"""Texts of a block. An interrupted computation loses at most one block."""
_VECTORS = "vectors"


@dataclass(frozen=True, slots=True)
class TeacherVectors:
    """Vectors of texts, of length 1. Each block but the last has the same number of them."""

    blocks: Sequence[NDArray[np.float16]]  # of (texts, width)

    @property
    def width(self) -> int:
        """The width of the vectors."""
        return int(self.blocks[0].shape[1])

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors ``rows``, (rows, width)."""
        found = np.empty((len(rows), self.width), np.float32)
        numbers, places = np.divmod(rows, len(self.blocks[0]))
        for number in np.unique(numbers):
            is_inside = numbers == number
            found[is_inside] = self.blocks[number][places[is_inside]]
        return found


def read_or_embed(texts: Sequence[str], folder: Path, embed: EmbedTexts) -> TeacherVectors:
    """The vectors of ``texts``. ``embed`` computes those of blocks that ``folder`` does not have.

    A block is found by a hash of its texts, so ``folder`` may serve several runs with the same
    teacher. Raises ValueError without texts, and as `open_or_build` and ``embed``.
    """
    if not texts:
        raise ValueError("there is no text for a teacher")
    blocks = []
    with tqdm(total=len(texts), unit="text", desc="teacher", disable=None) as bar:
        for start in range(0, len(texts), BLOCK_TEXTS):
            block = texts[start : start + BLOCK_TEXTS]
            found = _read_or_embed_block(block, folder, embed)
            blocks.append(found.arrays[_VECTORS].reshape(len(block), found.facts["width"]))
            bar.update(len(block))
    return TeacherVectors(blocks)


def _read_or_embed_block(texts: Sequence[str], folder: Path, embed: EmbedTexts) -> ArrayFolder:
    def build(writer: FolderWriter) -> Mapping[str, Any]:
        vectors = embed(texts)
        writer.append(_VECTORS, vectors.reshape(-1))
        return {"width": vectors.shape[1]}

    hashed = hashlib.sha256()
    for text in texts:
        content = text.encode()
        hashed.update(len(content).to_bytes(8, "little") + content)
    return open_or_build(folder / hashed.hexdigest(), build)
