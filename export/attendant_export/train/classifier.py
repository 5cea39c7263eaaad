"""Trains a classification head with an encoder that has been trained: losses and validation."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from attendant.v1.bundle_pb2 import Classification, Limits, Manifest
from attendant.v1.embedding_pb2 import (
    SCORE_FUNCTION_IDENTITY,
    SCORE_FUNCTION_SIGMOID,
    SCORE_FUNCTION_SOFTMAX,
)
from attendant_manifest.part_rules import MAX_TOKENS as MAX_TOKENS_OF_BUNDLES
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.bad_lines import SKIP, BadLines
from attendant_export.data.labelled_batches import (
    AnswerScale,
    LabelledBatch,
    LabelledDataset,
    TextReader,
)
from attendant_export.data.labelled_texts import (
    CLASSIFY,
    MULTIPLE_CHOICE,
    SIMILARITY,
    LabelledTexts,
    labels_of,
    read_labelled,
    score_range,
)
from attendant_export.data.text_files import digest
from attendant_export.models.embeddings import longest_text
from attendant_export.models.encoder import Encoder
from attendant_export.runs.config import RunConfig, write_config
from attendant_export.runs.config_checks import check_run, has_started
from attendant_export.runs.inputs import check_inputs, write_inputs
from attendant_export.runs.text_facts import write_facts
from attendant_export.train.device import pick_device, pick_precision
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup
from attendant_export.train.encoder_start import EncoderStart, read_start, with_head
from attendant_export.train.loop import Progress, Task, Trainer
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.setup import prepare_tokenizer
from attendant_export.verify.metrics import measure_answers

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClassifierData:
    """The files of a training and how they are read."""

    train: Path
    valid: Path
    task: str
    max_tokens: int | None = None
    """Limit of tokens of a text or a pair. None: that of the encoder."""
    max_batch_tokens: int = 2048
    skip_bad_lines: bool = False
    """Leave out lines of training text that cannot be used, instead of refusing to train."""


class ClassifierTask:
    """Batches, loss and validation of a classification head and its encoder, for `Trainer`."""

    def __init__(
        self,
        model: Encoder,
        train: LabelledDataset,
        valid: LabelledDataset,
        task: str,
        seed: int,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.model, self.train, self.valid, self.task = model, train, valid, task
        self.seed, self.processes = seed, processes
        self._has_types = model.architecture.source_embeddings.num_token_types > 1

    def as_task(self) -> Task[LabelledBatch]:
        """The interface of this task for `Trainer`."""
        num_batches = self.train.num_batches()
        return Task(
            self.batches, num_batches, self.loss, self.validate, lambda batch: batch.num_lines
        )

    def batches(self, epoch: int) -> Iterator[LabelledBatch]:
        """This process's share of the batches of an epoch, on the model's device."""
        device = self.model.embedding.weight.device
        for batch in self.train.batches(np.random.default_rng((self.seed, epoch))):
            yield batch.share(self.processes.rows, device)

    def scores(self, batch: LabelledBatch) -> Tensor:
        """The scores (lines, inputs, labels) of the labels, before the score function."""
        ids, types = (each.flatten(0, 1) for each in (batch.token_ids, batch.token_types))
        scores = self.model.label_scores(ids, types if self._has_types else None).float()
        return scores.view(*batch.is_input.shape, -1)

    def loss(self, batch: LabelledBatch) -> Tensor:
        """The mean loss of the lines of the whole batch: this process's part of the sum.

        Cross-entropy of the labels or of the choices; for similarity, binary cross-entropy of both
        orders of a pair.
        """
        scores, answers = self.scores(batch), batch.answers
        if self.task == SIMILARITY:
            wanted = answers[:, None].expand(scores.shape[:2])
            each = F.binary_cross_entropy_with_logits(scores[..., 0], wanted, reduction="none")
            return each.mean(dim=1).sum() / batch.num_lines
        if self.task == MULTIPLE_CHOICE:
            logits = scores[..., 0].masked_fill(~batch.is_input, -torch.inf)
        else:
            logits = scores[:, 0]
        return F.cross_entropy(logits, answers, reduction="sum") / batch.num_lines

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """What `measure_answers` measures on the validation text, and the loss."""
        device = self.model.embedding.weight.device
        scores, answers, loss = [], [], 0.0
        for batch in self.valid.batches(np.random.default_rng(self.seed)):
            own = batch.share(SINGLE_PROCESS.rows, device)
            loss += self.loss(own).item() * own.num_lines
            found = self.scores(own).masked_fill(~own.is_input[..., None], -torch.inf).cpu()
            scores += list(found.numpy())
            answers += own.answers.tolist()
        return measure_answers(self.task, scores, answers) | {
            "validation_loss": loss / len(answers)
        }


def classification_of(texts: LabelledTexts) -> Classification:
    """The labels of the head and the function of their scores."""
    functions = {SIMILARITY: SCORE_FUNCTION_SIGMOID, MULTIPLE_CHOICE: SCORE_FUNCTION_IDENTITY}
    function = functions.get(texts.task, SCORE_FUNCTION_SOFTMAX)
    return Classification(labels=labels_of(texts), score_function=function)


def train_classifier(
    data: ClassifierData,
    options: TrainingOptions,
    run_dir: Path,
    init_from: Path,
    *,
    pooling: str = "mean",
    dropout: float = 0.1,
    device: str = "auto",
    precision: str = "auto",
    processes: ProcessGroup = SINGLE_PROCESS,
    tensorboard: bool = False,
) -> Progress:
    """Train a classification head and its encoder in ``run_dir``, or resume it.

    Returns the progress. ``init_from`` is the run folder or the bundle of an encoder, whose heads
    are left out. Writes ``config.json``, ``tokenizer.json``, ``texts.json``, ``last/``, ``best/``
    and the history. Every one of the ``processes`` must make the same call.

    Raises ValueError for bad lines, labels of the validation text that the training text lacks,
    limits that the encoder cannot have, another model as ``init_from``, and if the text or the
    model differs from that of the run. Also raises as `Trainer` and `Trainer.train`.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    start = read_start(init_from)
    tokenizer = prepare_tokenizer(run_dir, init_from, processes=processes)
    if data.task != CLASSIFY and not tokenizer.num_special_tokens_to_add(is_pair=True):
        raise ValueError(f"--init-from {init_from}: its tokenizer does not separate two texts")
    texts = _Texts(data, tokenizer, start)
    network = with_head(start, len(texts.classification.labels), pooling)
    config = RunConfig(data.task, network, start.tokens, dropout)
    check_run(run_dir, config)
    model = Encoder(network, start.tokens, dropout)
    start.load(model)
    model.to(pick_device(device))
    check_inputs(run_dir, texts.inputs)
    task = ClassifierTask(model, texts.train, texts.valid, data.task, options.seed, processes)
    trainer = Trainer(
        model,
        task.as_task(),
        options,
        run_dir,
        processes=processes,
        dtype=pick_precision(precision, next(model.parameters()).device, processes),
        tensorboard=tensorboard,
    )
    if processes.is_first:
        if not has_started(run_dir):
            write_facts(run_dir, texts.facts(start))
        write_inputs(run_dir, texts.inputs)
        write_config(run_dir, config)
    return trainer.train()


class _Texts:
    """The tokens of both files, and what the training text says about the head."""

    def __init__(self, data: ClassifierData, tokenizer: Tokenizer, start: EncoderStart) -> None:
        """Raises ValueError as `train_classifier`."""
        self._max_tokens = _max_tokens(data, start)
        bad_lines = BadLines()
        lines = read_labelled(data.train, data.task, bad_lines)
        self._handle(bad_lines, data)
        self.classification = classification_of(lines)
        scores = score_range(lines) if data.task == SIMILARITY else (0.0, 1.0)
        scale = AnswerScale(list(self.classification.labels), scores)
        vocab_size = start.architecture.source_embeddings.vocab_size
        reader = TextReader(tokenizer, start.tokens.pad_id, vocab_size, self._max_tokens)
        too_long = BadLines()
        self.train = LabelledDataset(lines, reader, scale, data.max_batch_tokens, too_long)
        self._handle(too_long, data)
        valid = read_labelled(data.valid, data.task)
        self.valid = LabelledDataset(valid, reader, scale, data.max_batch_tokens)
        self.inputs = [
            (data.train.name, digest(data.train)),
            ("limit of tokens", str(self._max_tokens)),
        ]

    @staticmethod
    def _handle(bad_lines: BadLines, data: ClassifierData) -> None:
        if not data.skip_bad_lines:
            bad_lines.refuse(SKIP)
        elif bad_lines.counts:
            logger.info("left out: %s", bad_lines.summary())

    def facts(self, start: EncoderStart) -> Manifest:
        """How the model reads texts, and its labels."""
        return Manifest(
            text_normalization=start.text_normalization,
            limits=Limits(max_tokens=self._max_tokens),
            classification=self.classification,
        )


def _max_tokens(data: ClassifierData, start: EncoderStart) -> int:
    if data.max_tokens is None:
        return start.max_tokens
    most = longest_text(start.architecture, MAX_TOKENS_OF_BUNDLES)
    if data.max_tokens > most:
        raise ValueError(f"--max-tokens {data.max_tokens}: the encoder reads at most {most}")
    return data.max_tokens
