"""The sentence embeddings of an encoder: batches, loss and validation."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.masked_text import MaskedBatch
from attendant_export.data.similar_pairs import SimilarBatch, SimilarPairs
from attendant_export.models.encoder import Encoder
from attendant_export.models.text_vectors import Pooling
from attendant_export.train.bert_losses import (
    contrastive_loss,
    distillation_loss,
    masked_loss,
    same_meaning,
)
from attendant_export.train.distillation import Distillation
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup
from attendant_export.train.loop import Task
from attendant_export.train.masked import MlmTask
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.sentence_vectors import embed_texts
from attendant_export.verify.metrics import retrieval_accuracy


@dataclass(frozen=True, slots=True)
class ContrastiveOptions:
    """Options of the contrastive phase."""

    training: TrainingOptions
    max_pairs: int = 128
    """Pairs of a batch. All other sentences of the other side are negatives."""
    temperature: float = 0.05
    pooling: Pooling = "mean"
    mlm_weight: float = 1.0
    """Weight of the masked-language-model loss that each step adds."""
    embedding_training: TrainingOptions | None = None
    """Options of a first phase that trains averaged token embeddings. None: no such phase.

    Averages of token embeddings are strong sentence embeddings (Wieting et al., 2019) and cost a
    hundredth of training the whole model. A pre-norm model starts from them. Do not train the
    masked language model alone after this phase: it destroyed the embeddings (92 % of 2,000
    translations found before it, 1 % after), and 27 minutes of the contrastive phase restored only
    84 %.
    """
    max_embedding_pairs: int = 256
    """Pairs of a batch of the embedding phase."""
    max_paraphrases_per_group: int = 1
    """Limit of paraphrase pairs from sentences that share one translation."""
    num_valid_sentences: int = 1000


@dataclass(frozen=True, slots=True)
class TaughtBatch:
    """The teacher's vectors for a batch, and further texts with theirs.

    All vectors have the width of the student and the length 1.
    """

    first: Tensor  # (pairs, d_model) of the pairs of all processes
    second: Tensor  # (pairs, d_model)
    texts: Tensor | None  # (texts, length) one process's share
    targets: Tensor | None  # (texts, d_model) those of the share
    num_texts: int  # of all processes


@dataclass(frozen=True, slots=True)
class ContrastiveBatch:
    """One process's share of similar pairs and of a masked-language-model batch."""

    first: Tensor  # (pairs, length)
    second: Tensor  # (pairs, length) their partners
    num_pairs: int  # of all processes
    masked: MaskedBatch | None
    taught: TaughtBatch | None = None


class ContrastiveTask:
    """Batches, loss and validation of the sentence embeddings, for `Trainer`.

    With ``mlm``, each step also trains the masked language model, which keeps its head accurate.
    With ``teacher``, vectors are also drawn to those of a teacher. A sentence is compared with the
    sentences of all ``processes``. Sentences of ``valid`` are truncated to ``max_tokens``. See
    `Encoder.hidden_states` for ``num_layers``.
    """

    def __init__(
        self,
        model: Encoder,
        tokenizer: Tokenizer,
        pairs: SimilarPairs,
        valid: Sequence[tuple[str, str]],
        max_tokens: int,
        options: ContrastiveOptions,
        mlm: MlmTask | None = None,
        num_layers: int | None = None,
        processes: ProcessGroup = SINGLE_PROCESS,
        teacher: Distillation | None = None,
    ) -> None:
        self.model, self.tokenizer, self.pairs, self.options = model, tokenizer, pairs, options
        self.mlm, self.num_layers, self.processes = mlm, num_layers, processes
        self.max_tokens, self.teacher = max_tokens, teacher
        self.valid_sides = [[pair[side] for pair in valid] for side in (0, 1)]
        self._neighbours = None if teacher is None else teacher.hard_negatives(pairs)

    def as_task(self) -> Task[ContrastiveBatch]:
        """The interface of this task for `Trainer`."""
        num_batches = self.pairs.num_batches(self.options.max_pairs)
        return Task(
            self.batches, num_batches, self.loss, self.validate, lambda batch: batch.num_pairs
        )

    @property
    def _device(self) -> torch.device:
        return self.model.embedding.weight.device

    def batches(self, epoch: int) -> Iterator[ContrastiveBatch]:
        """This process's share of the batches of an epoch, on the model's device."""
        rng = np.random.default_rng((self.options.training.seed, epoch))
        masked, taught = self._endless_masked_batches(epoch), self._endless_texts(epoch)
        for batch in self.pairs.batches(self.options.max_pairs, rng, self._neighbours):
            own = [self.processes.rows(side).to(self._device) for side in (batch[0], batch[1])]
            yield ContrastiveBatch(
                own[0], own[1], len(batch.first), next(masked), self._taught(batch, next(taught))
            )

    def _endless_masked_batches(self, epoch: int) -> Iterator[MaskedBatch | None]:
        while self.mlm is not None:
            yield from self.mlm.batches(epoch)
        yield from itertools.repeat(None)

    def _endless_texts(self, epoch: int) -> Iterator[tuple[Tensor, Tensor] | None]:
        rng = np.random.default_rng((self.options.training.seed, epoch, 1))
        while self.teacher is not None and self.teacher.has_further_texts:
            yield from self.teacher.batches(self.options.max_pairs, rng)
        yield from itertools.repeat(None)

    def _taught(
        self, batch: SimilarBatch, further: tuple[Tensor, Tensor] | None
    ) -> TaughtBatch | None:
        if self.teacher is None:
            return None
        first, second = (
            self.teacher.targets_of([self.pairs.texts[i] for i in side]).to(self._device)
            for side in batch.sentences
        )
        if further is None:
            return TaughtBatch(first, second, None, None, 0)
        texts, targets = (self.processes.rows(each).to(self._device) for each in further)
        return TaughtBatch(first, second, texts, targets, len(further[0]))

    def loss(self, batch: ContrastiveBatch) -> Tensor:
        """The contrastive loss plus the weighted losses of masked tokens and of distillation."""
        options, processes = self.options, self.processes
        own = [self._pooled(side) for side in (batch.first, batch.second)]
        first, second = (processes.all_rows(embeddings, batch.num_pairs) for embeddings in own)
        taught = batch.taught
        is_same = None if taught is None else same_meaning(taught.first, taught.second)
        loss = contrastive_loss(first, second, options.temperature, is_same)
        # The gradient is already this process's part; the value is that of the whole batch.
        loss = loss - loss.detach() * (1 - 1 / processes.size)
        if batch.masked is not None:
            loss = loss + options.mlm_weight * masked_loss(self.model, batch.masked)
        if self.teacher is not None and taught is not None:
            loss = loss + self.teacher.weight * self._distillation_loss(own, taught)
        return loss

    def _pooled(self, token_ids: Tensor) -> Tensor:
        return self.model.pooled(token_ids, self.options.pooling, self.num_layers)

    def _distillation_loss(self, own: Sequence[Tensor], taught: TaughtBatch) -> Tensor:
        """The mean over the pairs and the further texts of a batch: this process's part of it."""
        rows = self.processes.rows
        vectors, targets = [*own], [rows(taught.first), rows(taught.second)]
        if taught.texts is not None and taught.targets is not None:
            vectors.append(self._pooled(taught.texts))
            targets.append(taught.targets)
        num_rows = 2 * len(taught.first) + taught.num_texts
        return distillation_loss(torch.cat(vectors), torch.cat(targets), num_rows)

    def validate(self) -> dict[str, float]:
        """Retrieval accuracy of held-out translations, and accuracy of masked tokens.

        If both are trained, their mean selects the best checkpoint. With a teacher, also the mean
        cosine of the sentences of both sides to the teacher's vectors.
        """
        how = (self.max_tokens, self.options.pooling, self.num_layers)
        sides = [embed_texts(self.model, self.tokenizer, texts, *how) for texts in self.valid_sides]
        measured = {"retrieval_accuracy": retrieval_accuracy(*sides)}
        if self.mlm is not None:
            measured |= self.mlm.validate()
            measured = {"mean_accuracy": sum(measured.values()) / len(measured)} | measured
        if self.teacher is not None:
            cosines = map(self.teacher.mean_cosine, self.valid_sides, sides)
            measured["teacher_cosine"] = sum(cosines) / len(sides)
        return measured
