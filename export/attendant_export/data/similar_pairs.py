"""Pairs of sentences with the same meaning, as batches for contrastive learning."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.batches import encode_whole, pad
from attendant_export.data.hard_negatives import followed_by_neighbours
from attendant_export.data.text_files import group_references
from attendant_export.data.tokenizer import (
    BERT_PAD,
    special_token_id,
)


def paraphrase_pairs(pairs: Sequence[tuple[str, str]], max_per_group: int) -> list[tuple[str, str]]:
    """Pairs of sentences of one language that have the same translation, for both languages.

    Neighbours in a group of such sentences are paired, at most ``max_per_group`` pairs per group.
    """
    paraphrases: list[tuple[str, str]] = []
    for direction in (pairs, [(b, a) for a, b in pairs]):
        for translations in group_references(direction).values():
            group = list(dict.fromkeys(translations))
            paraphrases += list(zip(group, group[1:], strict=False))[:max_per_group]
    return paraphrases


class SimilarBatch(NamedTuple):
    """Pairs of sentences as padded token ids."""

    first: Tensor  # (pairs, length)
    second: Tensor  # (pairs, length) their partners
    sentences: NDArray[np.int64]  # (2, pairs) their places in `SimilarPairs.texts`


class SimilarPairs:
    """Encoded pairs of sentences with the same meaning. No batch repeats a sentence."""

    def __init__(
        self, pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, max_tokens: int
    ) -> None:
        """Encode each distinct sentence once, truncated to ``max_tokens``."""
        self.texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        """The distinct sentences."""
        numbers = {text: i for i, text in enumerate(self.texts)}
        self.pairs = [(numbers[a], numbers[b]) for a, b in pairs]
        """The places of both sentences of each pair in `texts`."""
        self._sentences = encode_whole(self.texts, tokenizer, max_tokens)
        self.lengths = [
            max(len(self._sentences[a]), len(self._sentences[b])) for a, b in self.pairs
        ]
        """The tokens of the longer sentence of each pair."""
        self._pad_id = special_token_id(tokenizer, BERT_PAD)

    def __len__(self) -> int:
        return len(self.pairs)

    def num_batches(self, max_pairs: int) -> int:
        """The approximate number of batches of an epoch; repeated sentences can change it."""
        return len(self._without_repeats(np.argsort(self.lengths), max_pairs))

    def batches(
        self,
        max_pairs: int,
        rng: np.random.Generator,
        neighbours: NDArray[np.int32] | None = None,
    ) -> Iterator[SimilarBatch]:
        """The batches of one epoch, in random order.

        Pairs of similar length share a batch. ``neighbours`` (pairs, count) are pairs that share
        the batch of a pair, as its hard negatives; see `find_neighbours`.
        """
        order = np.lexsort((rng.random(len(self.pairs)), np.asarray(self.lengths)))
        if neighbours is not None:
            order = followed_by_neighbours(order, neighbours)
        batches = self._without_repeats(order, max_pairs)
        for i in rng.permutation(len(batches)):
            sides = np.array([self.pairs[j] for j in batches[i]]).T
            first, second = (
                pad([self._sentences[s] for s in side], self._pad_id) for side in sides
            )
            yield SimilarBatch(first, second, sides)

    def _without_repeats(self, order: np.ndarray, max_pairs: int) -> list[list[int]]:
        """Split ``order`` into batches. Skips a pair that repeats a sentence of its batch."""
        batches: list[list[int]] = []
        seen: set[int] = set()
        for index in order.tolist():
            if not batches or len(batches[-1]) == max_pairs:
                batches.append([])
                seen = set()
            if seen.isdisjoint(self.pairs[index]):
                batches[-1].append(index)
                seen.update(self.pairs[index])
        return batches
