"""The masked language model of an encoder: batches, loss and validation."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.batches import encode_in_pieces
from attendant_export.data.bert_text import BertData, MlmText
from attendant_export.data.masked_text import MaskedBatch, MaskedDataset
from attendant_export.models.encoder import Encoder
from attendant_export.train.bert_losses import masked_loss
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup
from attendant_export.train.loop import Task
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.sentence_vectors import MAX_VALID_BATCH_TOKENS


@dataclass(frozen=True, slots=True)
class MlmOptions:
    """Options of the masked language model, as a separate phase and in the contrastive phase."""

    training: TrainingOptions | None = None
    """Options of a phase that trains only the masked language model. None: no such phase."""
    max_batch_tokens: int = 4096
    """Padded tokens of a batch, in both phases."""
    mask_ratio: float = 0.15
    num_valid_sequences: int = 600


class MlmTask:
    """Batches, loss and validation of the masked language model, for `Trainer`."""

    def __init__(
        self,
        model: Encoder,
        tokenizer: Tokenizer,
        text: MlmText,
        data: BertData,
        options: MlmOptions,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.model, self.options, self.seed, self.processes = model, options, data.seed, processes
        sequences = encode_in_pieces(text.train, tokenizer, data.max_tokens)
        self.dataset = MaskedDataset(sequences, tokenizer, options.mask_ratio)
        rng = np.random.default_rng(data.seed)
        chosen = rng.permutation(len(text.valid))[: options.num_valid_sequences]
        valid = encode_in_pieces([text.valid[i] for i in chosen], tokenizer, data.max_tokens)
        # Masked only once, so that all validations are comparable.
        masked = MaskedDataset(valid, tokenizer).batches(MAX_VALID_BATCH_TOKENS, rng)
        self.valid_batches = list(masked)

    @property
    def _device(self) -> torch.device:
        return self.model.embedding.weight.device

    def as_task(self) -> Task[MaskedBatch]:
        """The interface of this task for `Trainer`."""
        num_batches = self.dataset.num_batches(self.options.max_batch_tokens)
        return Task(
            self.batches, num_batches, self.loss, self.validate, lambda batch: batch.num_targets
        )

    def batches(self, epoch: int) -> Iterator[MaskedBatch]:
        """This process's share of the batches of an epoch, on the model's device."""
        rng = np.random.default_rng((self.seed, epoch))
        for batch in self.dataset.batches(self.options.max_batch_tokens, rng):
            yield batch.share(self.processes.rows, self._device)

    def loss(self, batch: MaskedBatch) -> Tensor:
        """Cross-entropy per masked token of the whole batch: this process's part of the sum."""
        return masked_loss(self.model, batch)

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Fraction of masked tokens in held-out text that the model's best guess predicts."""
        num_right = num_targets = 0
        for batch in (b.share(SINGLE_PROCESS.rows, self._device) for b in self.valid_batches):
            hidden = self.model(batch.token_ids)[batch.is_target]  # (targets, d_model)
            best = self.model.mask_logits(hidden).argmax(dim=1)
            num_right += int((best == batch.targets).sum())
            num_targets += len(batch.targets)
        return {"masked_accuracy": num_right / num_targets}
