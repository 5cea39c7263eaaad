"""Token sequences as batches for the masked language model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.batches import num_batches, pad, shuffled_batches
from attendant_export.data.tokenizer import (
    BERT_CLS,
    BERT_MASK,
    BERT_PAD,
    BERT_SEP,
    BERT_UNK,
    special_token_id,
)


@dataclass(frozen=True, slots=True)
class MaskedBatch:
    """A right-padded masked-language-model batch, or one process's share of its rows."""

    token_ids: Tensor  # (batch, length) as the model sees them
    is_target: Tensor  # (batch, length) True where the model must predict
    targets: Tensor  # (targets) original token ids at these positions, in row order
    num_targets: int  # of the whole batch, not of the share

    def share(self, rows: Callable[[Tensor], Tensor], device: torch.device) -> "MaskedBatch":
        """One process's share, on ``device``; ``rows`` selects its rows of a tensor."""
        is_own = torch.zeros_like(self.is_target)
        rows(is_own)[:] = True
        return MaskedBatch(
            rows(self.token_ids).to(device),
            rows(self.is_target).to(device),
            self.targets[is_own[self.is_target]].to(device),
            self.num_targets,
        )


class MaskedDataset:
    """Token sequences with new random masks in each epoch (Devlin et al., section 3.1)."""

    def __init__(
        self, sequences: Sequence[np.ndarray], tokenizer: Tokenizer, mask_ratio: float = 0.15
    ) -> None:
        """``tokenizer`` must have [PAD], [UNK], [CLS], [SEP] and [MASK]."""
        self.sequences, self.mask_ratio = sequences, mask_ratio
        self._lengths = [len(ids) for ids in sequences]
        self._pad_id = special_token_id(tokenizer, BERT_PAD)
        self._mask_id = special_token_id(tokenizer, BERT_MASK)
        self._kept_ids = [
            special_token_id(tokenizer, token) for token in (BERT_PAD, BERT_CLS, BERT_SEP)
        ]
        special_ids = [*self._kept_ids, self._mask_id, special_token_id(tokenizer, BERT_UNK)]
        self._word_ids = np.setdiff1d(np.arange(tokenizer.get_vocab_size()), special_ids)

    def __len__(self) -> int:
        return len(self.sequences)

    def num_batches(self, max_batch_tokens: int) -> int:
        """The number of batches of an epoch."""
        return num_batches(self._lengths, max_batch_tokens)

    def batches(self, max_batch_tokens: int, rng: np.random.Generator) -> Iterator[MaskedBatch]:
        """One epoch of batches in random order, with masks drawn from ``rng``."""
        for indices in shuffled_batches(self._lengths, max_batch_tokens, rng):
            yield self.mask(pad([self.sequences[i] for i in indices], self._pad_id), rng)

    def mask(self, token_ids: Tensor, rng: np.random.Generator) -> MaskedBatch:
        """Choose tokens to predict: 80 % become [MASK], 10 % a random token, 10 % stay."""
        original = token_ids.numpy()
        draws = rng.random(original.shape)
        draws[np.isin(original, self._kept_ids)] = 1
        is_target = draws <= max(self.mask_ratio, draws.min())  # at least one target
        kind = rng.random(original.shape)
        masked = np.where(is_target & (kind < 0.8), self._mask_id, original)
        random_ids = rng.choice(self._word_ids, size=original.shape)
        masked = np.where(is_target & (kind >= 0.9), random_ids, masked)
        targets = torch.from_numpy(original[is_target])
        return MaskedBatch(
            torch.from_numpy(masked), torch.from_numpy(is_target), targets, len(targets)
        )
