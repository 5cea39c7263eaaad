"""Text of causal language models: sequences cut from a stream of tokens.

Depends on files and tokenizers, not on models.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.text_corpus import TextCorpus
from attendant_export.data.tokenizer import train_language_model_tokenizer


@dataclass(frozen=True, slots=True)
class LanguageData(TextCorpus):
    """The text of a training of a language model."""

    vocab_size: int = 8000
    """Vocabulary size of a new tokenizer."""
    max_tokens: int = 256
    """Tokens of a sequence that is trained on."""
    max_batch_tokens: int = 4096

    def train_tokenizer(self) -> Tokenizer:
        """A new tokenizer of the training text; raises ValueError as `documents`."""
        return train_language_model_tokenizer(self.documents(self.train), self.vocab_size)


@dataclass(frozen=True, slots=True)
class LanguageBatch:
    """Sequences of a stream, or one process's share of them."""

    token_ids: Tensor  # (batch, length)
    targets: Tensor  # (batch, length), the tokens that follow
    num_targets: int  # of the whole batch, not of the share

    def share(self, rows: Callable[[Tensor], Tensor], device: torch.device) -> "LanguageBatch":
        """One process's share, on ``device``; ``rows`` selects its rows of a tensor."""
        own = (rows(self.token_ids).to(device), rows(self.targets).to(device))
        return LanguageBatch(*own, self.num_targets)


class LanguageDataset:
    """Sequences of equal length, cut from a stream of tokens without regard to documents."""

    def __init__(self, stream: NDArray[np.integer], length: int, max_batch_tokens: int) -> None:
        """``length`` is that of a sequence; a shorter stream is a single sequence."""
        self._stream, self._length = stream, min(length, len(stream) - 1)
        self._size = max(1, max_batch_tokens // self._length)

    def num_batches(self) -> int:
        """The number of batches of an epoch."""
        return -(-self._num_sequences(0) // self._size)

    def batches(self, rng: np.random.Generator | None = None) -> Iterator[LanguageBatch]:
        """One epoch of batches: in order, or shuffled and cut at other places with ``rng``."""
        first, order = 0, np.arange(self._num_sequences(0))
        if rng is not None:
            spare = (len(self._stream) - 1) % self._length
            first = int(rng.integers(spare + 1))
            order = rng.permutation(self._num_sequences(first))
        for start in range(0, len(order), self._size):
            chosen = order[start : start + self._size] * self._length + first
            rows = chosen[:, None] + np.arange(self._length + 1)
            tokens = torch.from_numpy(self._stream[rows].astype(np.int64))
            yield LanguageBatch(tokens[:, :-1], tokens[:, 1:], len(chosen) * self._length)

    def _num_sequences(self, first: int) -> int:
        return (len(self._stream) - 1 - first) // self._length
