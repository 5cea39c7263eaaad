"""Pairs of sentences with the same meaning, as batches for contrastive learning."""

from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.batches import encode_whole, pad
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


class SimilarPairs:
    """Encoded pairs of sentences with the same meaning. No batch repeats a sentence."""

    def __init__(
        self, pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, max_tokens: int
    ) -> None:
        """Encode each distinct sentence once, truncated to ``max_tokens``."""
        numbers = {text: i for i, text in enumerate(dict.fromkeys(t for p in pairs for t in p))}
        self._pairs = [(numbers[a], numbers[b]) for a, b in pairs]
        self._sentences = encode_whole(list(numbers), tokenizer, max_tokens)
        self._lengths = [
            max(len(self._sentences[a]), len(self._sentences[b])) for a, b in self._pairs
        ]
        self._pad_id = special_token_id(tokenizer, BERT_PAD)

    def __len__(self) -> int:
        return len(self._pairs)

    def num_batches(self, max_pairs: int) -> int:
        """The approximate number of batches of an epoch; repeated sentences can change it."""
        return len(self._without_repeats(np.argsort(self._lengths), max_pairs))

    def batches(self, max_pairs: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Both sides (pairs, length) of the batches of one epoch, in random order.

        Pairs of similar length share a batch.
        """
        order = np.lexsort((rng.random(len(self._pairs)), np.asarray(self._lengths)))
        batches = self._without_repeats(order, max_pairs)
        for i in rng.permutation(len(batches)):
            sides = zip(*(self._pairs[j] for j in batches[i]), strict=True)
            first, second = (
                pad([self._sentences[s] for s in side], self._pad_id) for side in sides
            )
            yield first, second

    def _without_repeats(self, order: np.ndarray, max_pairs: int) -> list[list[int]]:
        """Split ``order`` into batches. Skips a pair that repeats a sentence of its batch."""
        batches: list[list[int]] = []
        seen: set[int] = set()
        for index in order.tolist():
            if not batches or len(batches[-1]) == max_pairs:
                batches.append([])
                seen = set()
            if seen.isdisjoint(self._pairs[index]):
                batches[-1].append(index)
                seen.update(self._pairs[index])
        return batches
