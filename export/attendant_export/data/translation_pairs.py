"""Sentence pairs as batches for teacher forcing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.augmentation import NO_AUGMENTATION, Augmentation
from attendant_export.data.batches import encode, num_batches, pad, shuffled_batches
from attendant_export.data.tokenizer import BOS, PAD, special_token_id

Example = tuple[list[int], list[int]]
"""Token ids of a source and of its target."""


@dataclass(frozen=True, slots=True)
class PairBatch:
    """A right-padded teacher-forcing batch, or one process's share of its rows."""

    source: Tensor  # (batch, source) ending with the end token
    target_in: Tensor  # (batch, target) beginning with the begin token
    target_out: Tensor  # (batch, target) ending with the end token
    num_targets: int  # real tokens in ``target_out`` of the whole batch, not of the share

    def share(self, rows: Callable[[Tensor], Tensor], device: torch.device) -> "PairBatch":
        """One process's share, on ``device``; ``rows`` selects its rows of a tensor."""
        tensors = (self.source, self.target_in, self.target_out)
        source, target_in, target_out = (rows(t).to(device) for t in tensors)
        return PairBatch(source, target_in, target_out, self.num_targets)


class PairDataset:
    """Encoded sentence pairs, in batches of a limited number of padded tokens."""

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        tokenizer: Tokenizer,
        max_tokens: int = 128,
    ) -> None:
        """Encode ``pairs``. Skips pairs with more than ``max_tokens`` on a side."""
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        encoded = self._encode(pairs)
        fitting = [i for i, example in enumerate(encoded) if self._fits(example)]
        self.pairs = [pairs[i] for i in fitting]
        self.examples = [encoded[i] for i in fitting]
        self.num_left_out = len(pairs) - len(self.examples)
        self._pad_id = special_token_id(tokenizer, PAD)
        self._bos_id = special_token_id(tokenizer, BOS)

    def __len__(self) -> int:
        return len(self.examples)

    def num_batches(self, max_batch_tokens: int) -> int:
        """The number of batches of an epoch without augmentation, which changes lengths."""
        return num_batches(_lengths(self.examples), max_batch_tokens)

    def batches(
        self,
        max_batch_tokens: int,
        rng: np.random.Generator,
        augmentation: Augmentation = NO_AUGMENTATION,
    ) -> Iterator[PairBatch]:
        """One epoch of batches in random order, with ``augmentation`` drawn anew."""
        examples = self._augmented(augmentation, rng) if augmentation else self.examples
        for indices in shuffled_batches(_lengths(examples), max_batch_tokens, rng):
            sources, targets = zip(*(examples[i] for i in indices), strict=True)
            target_out = pad(targets, self._pad_id)
            begin = torch.full((len(indices), 1), self._bos_id)
            target_in = torch.cat([begin, target_out[:, :-1]], dim=1)
            num_targets = sum(map(len, targets))
            yield PairBatch(pad(sources, self._pad_id), target_in, target_out, num_targets)

    def _augmented(self, augmentation: Augmentation, rng: np.random.Generator) -> list[Example]:
        """The examples, of which changed ones take the place of theirs; too long ones do not."""
        changed = augmentation.changed(self.pairs, rng)
        examples = list(self.examples)
        for index, example in zip(changed, self._encode(list(changed.values())), strict=True):
            if self._fits(example):
                examples[index] = example
        return examples

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> list[Example]:
        sources = encode([source for source, _ in pairs], self._tokenizer)
        targets = encode([target for _, target in pairs], self._tokenizer)
        return list(zip(sources, targets, strict=True))

    def _fits(self, example: Example) -> bool:
        return max(map(len, example)) <= self._max_tokens


def _lengths(examples: Sequence[Example]) -> list[int]:
    return [max(len(source), len(target)) for source, target in examples]
