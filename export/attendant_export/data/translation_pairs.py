"""Sentence pairs as batches for teacher forcing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.batches import num_batches, pad, shuffled_batches
from attendant_export.data.tokenizer import BOS, PAD, special_token_id


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
        sources = [e.ids for e in tokenizer.encode_batch([s for s, _ in pairs])]
        targets = [e.ids for e in tokenizer.encode_batch([t for _, t in pairs])]
        self.examples = [
            (s, t)
            for s, t in zip(sources, targets, strict=True)
            if len(s) <= max_tokens and len(t) <= max_tokens
        ]
        self.num_left_out = len(pairs) - len(self.examples)
        self._lengths = [max(len(s), len(t)) for s, t in self.examples]
        self._pad_id = special_token_id(tokenizer, PAD)
        self._bos_id = special_token_id(tokenizer, BOS)

    def __len__(self) -> int:
        return len(self.examples)

    def num_batches(self, max_batch_tokens: int) -> int:
        """The number of batches of an epoch."""
        return num_batches(self._lengths, max_batch_tokens)

    def batches(self, max_batch_tokens: int, rng: np.random.Generator) -> Iterator[PairBatch]:
        """One epoch of batches in random order."""
        for indices in shuffled_batches(self._lengths, max_batch_tokens, rng):
            sources, targets = zip(*(self.examples[i] for i in indices), strict=True)
            target_out = pad(targets, self._pad_id)
            begin = torch.full((len(indices), 1), self._bos_id)
            target_in = torch.cat([begin, target_out[:, :-1]], dim=1)
            num_targets = sum(map(len, targets))
            yield PairBatch(pad(sources, self._pad_id), target_in, target_out, num_targets)
