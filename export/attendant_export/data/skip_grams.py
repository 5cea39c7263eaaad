"""Pairs of a word and a word near it, with words drawn at random: the data of skip-gram.

Skip-gram with negative sampling: Mikolov et al., Distributed Representations of Words and Phrases
and their Compositionality, 2013 (arXiv 1310.4546). Works on arrays, not on models.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attendant_export.data.word_stream import WordPart, WordStream

NOISE_POWER = 0.75
"""Negatives are drawn in proportion to the counts of words to this power (section 2.2)."""
PAIRS_OF_DRAW = 8
"""Pairs of a batch for each word that is drawn as a negative of all of them."""
COUNTED_PARTS = 8
"""Number of parts of the text whose pairs are counted to estimate the length of an epoch."""


@dataclass(frozen=True, slots=True)
class SkipGramOptions:
    """How pairs and negatives are drawn."""

    window: int = 5
    """Largest distance of a pair. That of each word is drawn anew from 1 to this."""
    subsampling: float = 1e-3
    """The share of a word in the text from which on some of its occurrences are left out.

    A word with the share f is kept with the probability sqrt(subsampling / f) (section 2.3). 0: all
    words are kept.
    """
    num_negatives: int = 5
    max_pairs: int = 2048
    """Pairs of a batch."""


@dataclass(frozen=True, slots=True)
class SkipGramBatch:
    """Pairs of neighbouring words, or one process's share of them.

    A batch is a piece of a text, in which words recur. So it has each word once, and the numbers of
    pairs as a matrix.
    """

    words: Tensor  # (words) different ones
    contexts: Tensor  # (contexts) different ones
    near: Tensor  # (words, contexts) how many pairs have this word and this context
    noise: Tensor  # (words, contexts) how many negatives they count as
    num_pairs: int  # of the whole batch, not of the share

    def share(self, rows: Callable[[Tensor], Tensor], device: torch.device) -> "SkipGramBatch":
        """One process's share, on ``device``; ``rows`` selects its rows of a tensor."""
        return SkipGramBatch(
            rows(self.words).to(device),
            self.contexts.to(device),
            rows(self.near).to(device),
            rows(self.noise).to(device),
            self.num_pairs,
        )


class SkipGramDataset:
    """Draws pairs from a text, new ones in each epoch."""

    def __init__(
        self, stream: WordStream, counts: NDArray[np.int64], options: SkipGramOptions
    ) -> None:
        """``counts`` (vocab_size) of the training text, also if ``stream`` is another text."""
        self._stream, self._options = stream, options
        self._kept_share = keep_probabilities(counts, options.subsampling)
        powers = counts**NOISE_POWER
        self._noise = np.cumsum(powers) / powers.sum()

    def num_batches(self) -> int:
        """The number of batches of an epoch, estimated from some parts of the text."""
        rng, starts = np.random.default_rng(0), self._stream.part_starts()
        counted = starts[:: max(1, len(starts) // COUNTED_PARTS)]
        num_pairs = sum(len(self._pairs(start, rng)) for start in counted)
        return int(-(-num_pairs * len(starts) // (len(counted) * self._options.max_pairs)))

    def batches(self, rng: np.random.Generator) -> Iterator[SkipGramBatch]:
        """One epoch: the parts of the text in random order, the pairs of each in that of the text.

        Neighbouring pairs share words, so their batches need few vectors.
        """
        size, rest = self._options.max_pairs, np.zeros((0, 2), np.int64)
        for start in rng.permutation(self._stream.part_starts()):
            pairs = np.concatenate([rest, self._pairs(start, rng)])
            num_whole = len(pairs) // size * size
            for first in range(0, num_whole, size):
                yield self._batch(pairs[first : first + size], rng)
            rest = pairs[num_whole:]
        if len(rest):
            yield self._batch(rest, rng)

    def _pairs(self, start: int, rng: np.random.Generator) -> NDArray[np.int64]:
        part = self._stream.part(start)
        part = part.kept(rng.random(len(part)) < self._kept_share[part.words])
        reach = rng.integers(1, self._options.window + 1, len(part))
        return near_pairs(part, reach)

    def _batch(self, pairs: NDArray[np.int64], rng: np.random.Generator) -> SkipGramBatch:
        num_pairs, num_negatives = len(pairs), self._options.num_negatives
        num_drawn = max(num_negatives, num_pairs // PAIRS_OF_DRAW)
        drawn = np.searchsorted(self._noise, rng.random(num_drawn), side="right")
        words, rows = np.unique(pairs[:, 0], return_inverse=True)
        contexts, columns = np.unique(np.concatenate([pairs[:, 1], drawn]), return_inverse=True)
        shape = len(words), len(contexts)
        cells = rows * shape[1] + columns[:num_pairs]
        near = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float32)
        of_pair = np.bincount(columns[num_pairs:], minlength=shape[1]) * num_negatives / num_drawn
        # A negative of a pair that is the context of the pair does not count.
        noise = of_pair.astype(np.float32) * (near.sum(axis=1, keepdims=True) - near)
        return SkipGramBatch(
            torch.from_numpy(words),
            torch.from_numpy(contexts),
            torch.from_numpy(near),
            torch.from_numpy(noise),
            num_pairs,
        )


def keep_probabilities(counts: NDArray[np.int64], subsampling: float) -> NDArray[np.float64]:
    """The probability (vocab_size) with which an occurrence of each word is kept."""
    if not subsampling:
        return np.ones(len(counts))
    shares = counts / counts.sum()
    return np.asarray(np.sqrt(subsampling / np.maximum(shares, subsampling)))


def near_pairs(part: WordPart, reach: NDArray[np.integer]) -> NDArray[np.int64]:
    """Each word with each word of its document that is at most its ``reach`` (words) away.

    Returns (pairs, 2) in the order of the text: the word, and the one near it.
    """
    farthest = min(int(reach.max(initial=0)), len(part) - 1)
    distances = np.concatenate([np.arange(-farthest, 0), np.arange(1, farthest + 1)])
    is_pair = np.zeros((len(part), len(distances)), np.bool_)
    for column, distance in enumerate(distances):
        first, second = _apart(distance)
        together = part.documents[first] == part.documents[second]
        is_pair[first, column] = together & (reach[first] >= abs(distance))
    places, columns = np.nonzero(is_pair)
    return np.stack([part.words[places], part.words[places + distances[columns]]], axis=1)


def _apart(distance: int) -> tuple[slice, slice]:
    """The places that have a neighbour at a ``distance`` other than 0, and those neighbours."""
    if distance > 0:
        return slice(None, -distance), slice(distance, None)
    return slice(-distance, None), slice(None, distance)
