"""How often words occur near each other: the data of GloVe.

GloVe: Pennington, Socher and Manning, GloVe: Global Vectors for Word Representation, 2014. Works on
arrays, not on models.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attendant_export.data.array_folders import ArrayFolder, FolderWriter
from attendant_export.data.word_stream import WordPart, WordStream

WINDOW = 10
"""Default of the largest distance of a pair (section 4.2)."""


@dataclass(frozen=True, slots=True)
class Cooccurrences:
    """The cells of a symmetric matrix that are not 0, in the order of their rows and columns."""

    words: NDArray[np.int32]  # (cells)
    contexts: NDArray[np.int32]  # (cells)
    counts: NDArray[np.float32]  # (cells), each pair counts by one over its distance

    @classmethod
    def of_folder(cls, folder: ArrayFolder) -> "Cooccurrences":
        """The cells that `write` has written."""
        arrays = folder.arrays
        return cls(arrays["words"], arrays["contexts"], arrays["counts"])

    def write(self, writer: FolderWriter) -> None:
        """Write the cells to a folder."""
        for name, values in (
            ("words", self.words),
            ("contexts", self.contexts),
            ("counts", self.counts),
        ):
            writer.append(name, values)

    def __len__(self) -> int:
        return len(self.counts)


def count_cooccurrences(stream: WordStream, window: int) -> Cooccurrences:
    """Count the pairs of known words of a document that are at most ``window`` words apart.

    Unknown words are left out before distances are measured. A pair at a distance d counts 1/d in
    both orders.
    """
    sums = _CellSums()
    before = WordPart(np.zeros(0, np.int64), np.zeros(0, np.int64))
    for part in stream.parts():
        joined = before.followed_by(part)
        sums.add(*_weighted_pairs(joined, len(before), window, stream.vocab_size))
        kept = np.arange(len(joined)) >= len(joined) - window
        before = joined.kept(kept)
    keys, counts = sums.result()
    words, contexts = np.divmod(keys, stream.vocab_size)
    return Cooccurrences(
        words.astype(np.int32), contexts.astype(np.int32), counts.astype(np.float32)
    )


def _weighted_pairs(
    part: WordPart, num_before: int, window: int, vocab_size: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The key of the cell of each pair, and how much the pair counts.

    Pairs within the first ``num_before`` words are left out: they have been counted.
    """
    keys, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for distance in range(1, min(window, len(part) - 1) + 1):
        together = part.documents[:-distance] == part.documents[distance:]
        together &= np.arange(distance, len(part)) >= num_before
        first, second = part.words[:-distance][together], part.words[distance:][together]
        keys += [first * vocab_size + second, second * vocab_size + first]
        weights.append(np.full(2 * len(first), 1 / distance))
    return np.concatenate(keys), np.concatenate(weights)


class _CellSums:
    """Adds up the counts of cells, given by their keys.

    Sums are merged with others of about their size, so that each is moved few times.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []

    def add(self, keys: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Add weights to cells; a cell may occur several times."""
        self._parts.append(_summed(keys, weights))
        while len(self._parts) > 1 and 2 * len(self._parts[-1][0]) > len(self._parts[-2][0]):
            self._merge_last()

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The keys of all cells, ascending, and their sums."""
        while len(self._parts) > 1:
            self._merge_last()
        return self._parts[0]

    def _merge_last(self) -> None:
        (keys, sums), (more_keys, more_sums) = self._parts[-2:]
        merged = _summed(np.concatenate([keys, more_keys]), np.concatenate([sums, more_sums]))
        self._parts[-2:] = [merged]


def _summed(
    keys: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The distinct keys, ascending, with the sum of the weights of each."""
    order = np.argsort(keys, kind="stable")
    keys, weights = keys[order], weights[order]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[starts], np.add.reduceat(weights, starts) if len(keys) else weights


@dataclass(frozen=True, slots=True)
class CooccurrenceBatch:
    """Cells of the matrix, or one process's share of them."""

    words: Tensor  # (cells)
    contexts: Tensor  # (cells)
    counts: Tensor  # (cells)
    num_cells: int  # of the whole batch, not of the share

    def share(self, rows: Callable[[Tensor], Tensor], device: torch.device) -> "CooccurrenceBatch":
        """One process's share, on ``device``; ``rows`` selects its rows of a tensor."""
        return CooccurrenceBatch(
            rows(self.words).to(device),
            rows(self.contexts).to(device),
            rows(self.counts).to(device),
            self.num_cells,
        )


class CooccurrenceDataset:
    """Batches of cells, in a new order in each epoch."""

    def __init__(self, cells: Cooccurrences, max_pairs: int) -> None:
        """``max_pairs`` is the number of cells of a batch."""
        self._cells, self._size = cells, max_pairs

    def num_batches(self) -> int:
        """The number of batches of an epoch."""
        return -(-len(self._cells) // self._size)

    def batches(self, rng: np.random.Generator) -> Iterator[CooccurrenceBatch]:
        """One epoch in random order."""
        order = rng.permutation(len(self._cells))
        for first in range(0, len(order), self._size):
            yield self.batch(order[first : first + self._size])

    def batch(self, chosen: NDArray[np.int64]) -> CooccurrenceBatch:
        """The ``chosen`` cells."""
        cells = self._cells
        return CooccurrenceBatch(
            torch.from_numpy(cells.words[chosen].astype(np.int64)),
            torch.from_numpy(cells.contexts[chosen].astype(np.int64)),
            torch.from_numpy(cells.counts[chosen]),
            len(chosen),
        )
