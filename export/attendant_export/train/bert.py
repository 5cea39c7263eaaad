"""Trains a BERT in phases, each with its loss and validation.

The phases are token embeddings only, masked language model only, and sentence embeddings. `Trainer`
runs each of them.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attendant.v1.architecture_pb2 import NORM_POSITION_PRE, Architecture
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.batches import (
    encode_in_pieces,
    encode_whole,
    group_by_tokens,
    pad,
)
from attendant_export.data.bert_text import BertData, MlmText, read_mlm_text, read_similar_sentences
from attendant_export.data.masked_text import MaskedBatch, MaskedDataset
from attendant_export.data.similar_pairs import SimilarPairs
from attendant_export.data.tokenizer import (
    BERT_CLS,
    BERT_MASK,
    BERT_PAD,
    BERT_SEP,
    special_token_id,
    train_bert_tokenizer,
)
from attendant_export.models.encoder import Encoder
from attendant_export.models.shapes import with_vocab_size
from attendant_export.models.special_tokens import EncoderTokens
from attendant_export.models.text_vectors import Pooling
from attendant_export.runs.config import BERT, RunConfig, write_config
from attendant_export.train.bert_losses import contrastive_loss, masked_loss
from attendant_export.train.device import pick_device, pick_precision
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup
from attendant_export.train.loop import Progress, Task, Trainer
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.setup import prepare_model, prepare_tokenizer
from attendant_export.verify.metrics import retrieval_accuracy

MAX_VALID_BATCH_TOKENS = 4096
"""Padded tokens of a batch in validation."""


@dataclass(frozen=True, slots=True)
class MlmOptions:
    """Options of the masked language model, as a separate phase and in the contrastive phase."""

    training: TrainingOptions | None = None
    """Options of a phase that trains only the masked language model. None: no such phase."""
    max_batch_tokens: int = 4096
    """Padded tokens of a batch, in both phases."""
    mask_ratio: float = 0.15
    num_valid_sequences: int = 600


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


@torch.inference_mode()
def embed_texts(
    model: Encoder,
    tokenizer: Tokenizer,
    texts: list[str],
    max_tokens: int,
    pooling: Pooling = "mean",
    num_layers: int | None = None,
) -> Tensor:
    """Sentence embeddings (texts, d_model) in the order of ``texts``, not normalized.

    Texts are truncated to ``max_tokens``. See `Encoder.hidden_states` for ``num_layers``.
    """
    sequences = encode_whole(texts, tokenizer, max_tokens)
    lengths = [len(ids) for ids in sequences]
    device = model.embedding.weight.device
    embeddings = torch.empty(len(texts), model.architecture.d_model, device=device)
    for indices in group_by_tokens(lengths, MAX_VALID_BATCH_TOKENS, np.argsort(lengths)):
        token_ids = pad([sequences[i] for i in indices], model.tokens.pad_id)
        embeddings[indices] = model.pooled(token_ids.to(device), pooling, num_layers)
    return embeddings


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


@dataclass(frozen=True, slots=True)
class ContrastiveBatch:
    """One process's share of similar pairs and of a masked-language-model batch."""

    first: Tensor  # (pairs, length)
    second: Tensor  # (pairs, length) their partners
    num_pairs: int  # of all processes
    masked: MaskedBatch | None


class ContrastiveTask:
    """Batches, loss and validation of the sentence embeddings, for `Trainer`.

    With ``mlm``, each step also trains the masked language model, which keeps its head accurate. A
    sentence is compared with the sentences of all ``processes``. Sentences of ``valid`` are
    truncated to ``max_tokens``. See `Encoder.hidden_states` for ``num_layers``.
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
    ) -> None:
        self.model, self.tokenizer, self.pairs, self.options = model, tokenizer, pairs, options
        self.mlm, self.num_layers, self.processes = mlm, num_layers, processes
        self.max_tokens = max_tokens
        self.valid_sides = [[pair[side] for pair in valid] for side in (0, 1)]

    def as_task(self) -> Task[ContrastiveBatch]:
        """The interface of this task for `Trainer`."""
        num_batches = self.pairs.num_batches(self.options.max_pairs)
        return Task(
            self.batches, num_batches, self.loss, self.validate, lambda batch: batch.num_pairs
        )

    def batches(self, epoch: int) -> Iterator[ContrastiveBatch]:
        """This process's share of the batches of an epoch, on the model's device."""
        device = self.model.embedding.weight.device
        rng = np.random.default_rng((self.options.training.seed, epoch))
        masked = self._endless_masked_batches(epoch)
        for first, second in self.pairs.batches(self.options.max_pairs, rng):
            own = [self.processes.rows(side).to(device) for side in (first, second)]
            yield ContrastiveBatch(own[0], own[1], len(first), next(masked))

    def _endless_masked_batches(self, epoch: int) -> Iterator[MaskedBatch | None]:
        while self.mlm is not None:
            yield from self.mlm.batches(epoch)
        yield from itertools.repeat(None)

    def loss(self, batch: ContrastiveBatch) -> Tensor:
        """The contrastive loss plus the weighted loss of the masked language model."""
        options, processes = self.options, self.processes
        sides = (batch.first, batch.second)
        own = (self.model.pooled(side, options.pooling, self.num_layers) for side in sides)
        first, second = (processes.all_rows(embeddings, batch.num_pairs) for embeddings in own)
        loss = contrastive_loss(first, second, options.temperature)
        # The gradient is already this process's part; the value is that of the whole batch.
        loss = loss - loss.detach() * (1 - 1 / processes.size)
        if batch.masked is None:
            return loss
        return loss + options.mlm_weight * masked_loss(self.model, batch.masked)

    def validate(self) -> dict[str, float]:
        """Retrieval accuracy of held-out translations, and accuracy of masked tokens.

        If both are trained, their mean selects the best checkpoint.
        """
        how = (self.max_tokens, self.options.pooling, self.num_layers)
        first, second = (
            embed_texts(self.model, self.tokenizer, texts, *how) for texts in self.valid_sides
        )
        measured = {"retrieval_accuracy": retrieval_accuracy(first, second)}
        if self.mlm is None:
            return measured
        measured |= self.mlm.validate()
        return {"mean_accuracy": sum(measured.values()) / len(measured)} | measured


def train_bert(
    architecture: Architecture,
    data: BertData,
    mlm_options: MlmOptions,
    contrastive_options: ContrastiveOptions,
    run_dir: Path,
    *,
    dropout: float = 0.1,
    device: str = "auto",
    precision: str = "auto",
    init_from: Path | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
    tensorboard: bool = False,
) -> Progress:
    """Train a BERT in ``run_dir``, or resume it. Returns the progress of the last phase.

    The vocabulary size and the special ids are those of the tokenizer. ``init_from`` is a run
    folder or a bundle that gives the initial weights and the tokenizer. Writes ``config.json``,
    ``tokenizer.json``, and ``last/``, ``best/`` and the history of the contrastive phase; those of
    the earlier phases go to ``embeddings/`` and ``mlm/``. Finished phases are skipped. Every one of
    the ``processes`` must make the same call. Raises ValueError if the sizes differ from those of
    the run or of the initial weights, and as `read_mlm_text`, `Trainer` and `Trainer.train`.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(data.seed)
    text = read_mlm_text(data)
    tokenizer = prepare_tokenizer(
        run_dir, init_from, lambda: train_bert_tokenizer(text.train, data.vocab_size), processes
    )
    network = with_vocab_size(architecture, tokenizer.get_vocab_size())
    tokens = _special_tokens(tokenizer)
    config = RunConfig(BERT, network, tokens, dropout)
    model = Encoder(network, tokens, dropout).to(pick_device(device))
    prepare_model(model, config, run_dir, init_from)
    if init_from is None and network.encoder.norm_position == NORM_POSITION_PRE:
        model.begin_as_averages()
    if processes.is_first:
        write_config(run_dir, config)
    dtype = pick_precision(precision, next(model.parameters()).device, processes)
    for task, options, phase in _phases(
        model, tokenizer, text, data, mlm_options, contrastive_options, processes
    ):
        progress = Trainer(
            model,
            task,
            options,
            run_dir / phase,
            processes=processes,
            dtype=dtype,
            tensorboard=tensorboard,
        ).train()
    return progress


def _phases(
    model: Encoder,
    tokenizer: Tokenizer,
    text: MlmText,
    data: BertData,
    mlm_options: MlmOptions,
    options: ContrastiveOptions,
    processes: ProcessGroup,
) -> Iterator[tuple[Task[Any], TrainingOptions, str]]:
    """The task, options and folder of each phase, prepared when the previous one has finished."""
    sentences = read_similar_sentences(
        data, options.max_paraphrases_per_group, options.num_valid_sentences
    )
    pairs = SimilarPairs(sentences.train, tokenizer, data.max_tokens)
    given = (model, tokenizer, pairs, sentences.valid, data.max_tokens)
    if options.embedding_training is not None:
        averages = replace(
            options, training=options.embedding_training, max_pairs=options.max_embedding_pairs
        )
        task = ContrastiveTask(*given, averages, num_layers=0, processes=processes)
        yield task.as_task(), averages.training, "embeddings"
    mlm = MlmTask(model, tokenizer, text, data, mlm_options, processes)
    if mlm_options.training is not None:
        yield mlm.as_task(), mlm_options.training, "mlm"
    task = ContrastiveTask(*given, options, mlm, processes=processes)
    yield task.as_task(), options.training, ""


def _special_tokens(tokenizer: Tokenizer) -> EncoderTokens:
    names = {"pad_id": BERT_PAD, "cls_id": BERT_CLS, "sep_id": BERT_SEP, "mask_id": BERT_MASK}
    ids = {name: special_token_id(tokenizer, token) for name, token in names.items()}
    return EncoderTokens(**ids)
