"""Trains a translation model: its data, loss and validation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from attendant.v1.architecture_pb2 import Architecture
from torch import Tensor

from attendant_export.data.pair_tokenizer import Marks, PairTokenizer
from attendant_export.data.translation_data import TranslationData, TranslationTexts
from attendant_export.data.translation_pairs import PairBatch
from attendant_export.graphs.attention import check_decoder_heads
from attendant_export.models.embeddings import longest_text, position_limit
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.mixture_of_experts import balance_loss
from attendant_export.runs.config import TRANSLATION, RunConfig, write_config
from attendant_export.runs.config_checks import has_started
from attendant_export.runs.inputs import Inputs, check_inputs, write_inputs
from attendant_export.runs.models import load_pair_tokenizer, network_of_run
from attendant_export.runs.text_facts import marks_of, special_tokens
from attendant_export.train.choices import facts_of_choices
from attendant_export.train.device import pick_device, pick_precision
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup
from attendant_export.train.loop import Progress, Task, Trainer
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.setup import prepare_model, prepare_texts
from attendant_export.train.start import check_new_tokenizer, start_facts
from attendant_export.train.validation import (
    ValidationSet,
    read_validation,
    with_marks,
    without_long_sentences,
)
from attendant_export.train.vocabulary_loss import summed_cross_entropy

CACHE = "data"
"""Folder of a run that has its encoded pairs."""


def label_smoothed_loss(model: EncoderDecoder, batch: PairBatch, label_smoothing: float) -> Tensor:
    """Mean cross-entropy per real target token with label smoothing (section 5.4).

    While training, experts add the losses that balance them. For a share of a batch: the sum over
    the share, divided by the real tokens of the whole batch; other losses by the share's part of
    these tokens.
    """
    hidden = model(batch.source, batch.target_in)  # (batch, target, d_model)
    # Drop padding before the projection to the vocabulary, the largest product of the model.
    real = batch.target_out != model.tokens.target_pad_id
    hidden, targets = hidden[real], batch.target_out[real]  # (tokens, d_model), (tokens)
    summed = summed_cross_entropy(model.logits, hidden, targets, label_smoothing)
    if (balance := balance_loss(model)) is not None:
        summed = summed + len(targets) * balance
    return summed / batch.num_targets


class TranslationTask:
    """Batches, loss and validation of one language pair, for `Trainer`."""

    def __init__(
        self,
        model: EncoderDecoder,
        tokenizer: PairTokenizer,
        data: TranslationData,
        valid: Mapping[str, ValidationSet],
        cache_dir: Path,
        label_smoothing: float,
        seed: int,
        processes: ProcessGroup = SINGLE_PROCESS,
        marks: Sequence[Marks] = (),
    ) -> None:
        """``marks`` are the tokens next to the texts of each part of ``data``."""
        self.model, self.tokenizer, self.data, self.valid = model, tokenizer, data, valid
        self.label_smoothing, self.seed, self.processes = label_smoothing, seed, processes
        with processes.first_alone():  # It may write files that the others read.
            self.dataset = TranslationTexts(data, cache_dir).dataset(tokenizer, marks)

    def as_task(self) -> Task[PairBatch]:
        """The interface of this task for `Trainer`."""
        num_batches = self.dataset.num_batches(self.data.max_batch_tokens)
        return Task(
            self.batches, num_batches, self.loss, self.validate, lambda batch: batch.num_targets
        )

    @property
    def inputs(self) -> Inputs:
        """Name and hash of each file or folder of training text, with its choice."""
        parts = zip(self.dataset.parts, self.data.choices, strict=True)
        return [(part.texts.name, f"{part.texts.key}{choice}") for part, choice in parts]

    def batches(self, epoch: int) -> Iterator[PairBatch]:
        """This process's share of the batches of an epoch, on the model's device."""
        device = self.model.embedding.weight.device
        rng = np.random.default_rng((self.seed, epoch))
        limit = self.data.max_batch_tokens
        share = self.processes.share
        for batch in self.dataset.batches(limit, rng, self.data.augmentation, share):
            yield batch.to(device)

    def loss(self, batch: PairBatch) -> Tensor:
        """Label-smoothed cross-entropy per target token."""
        return label_smoothed_loss(self.model, batch, self.label_smoothing)

    def validate(self) -> dict[str, float]:
        """Loss, and BLEU and chrF of greedy translations, of each validation set.

        Metrics of further sets have the name of the set in front, such as ``news.bleu``. With
        augmentation, the first metric is the mean of two: BLEU of the first set, and BLEU of the
        same sentences in lower case without final punctuation.
        """
        measured = {
            f"{name}.{metric}" if name else metric: value
            for name, valid in self.valid.items()
            for metric, value in self._measure(valid).items()
        }
        if not self.data.augmentation:
            return measured
        casual = self.valid[""].casual().scores(self.model, self.tokenizer)["bleu"]
        mean = (measured["bleu"] + casual) / 2
        return {"mean_bleu": mean} | measured | {"casual_bleu": casual}

    def _measure(self, valid: ValidationSet) -> dict[str, float]:
        device = self.model.embedding.weight.device
        loss = valid.loss(self.loss, self.tokenizer, device)
        return valid.scores(self.model, self.tokenizer) | {"validation_loss": loss}


def train_translation(
    architecture: Architecture,
    data: TranslationData,
    options: TrainingOptions,
    run_dir: Path,
    *,
    dropout: float = 0.1,
    device: str = "auto",
    precision: str = "auto",
    label_smoothing: float = 0.1,
    init_from: Path | None = None,
    new_tokenizer: bool = False,
    processes: ProcessGroup = SINGLE_PROCESS,
    tensorboard: bool = False,
) -> Progress:
    """Train a translation model in ``run_dir``, or resume it. Returns the progress.

    The vocabulary size is that of the tokenizer. ``init_from`` is a run folder or a bundle that
    gives the initial weights, the tokenizer, and the languages and controls that files of ``data``
    can choose; with ``new_tokenizer``, a tokenizer is trained on the training text instead. Writes
    ``config.json``, ``tokenizer.json``, ``last/``, ``best/``, the history and the encoded pairs.
    Every one of the ``processes`` must make the same call.

    Raises ValueError if sizes or text differ from those of the run, or sizes from the initial
    weights, for bad lines (see `TranslationData`), for ``new_tokenizer`` without initial weights or
    with those of an imported model, for languages and controls that the model lacks, and for a
    width of heads that decoder steps do not support. Lines with more tokens than the learned
    positions of the network are bad lines, too; such sentences of validation files are left out,
    and a file without others is refused. Also raises as `Trainer` and `Trainer.train`.
    """
    check_decoder_heads(architecture)
    if new_tokenizer:
        check_new_tokenizer(init_from)
    valid = read_validation(data, options.seed)  # First: it is small, so mistakes show at once.
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    taken_from = None if new_tokenizer else init_from
    if not has_started(run_dir):
        _check_choices(data, taken_from)
    cache_dir = run_dir / CACHE if data.cache_dir is None else data.cache_dir
    facts = prepare_texts(
        *(run_dir, taken_from, data.choices),
        lambda others: TranslationTexts(data, cache_dir).train_tokenizer(others),
        processes,
    )
    network, tokens = network_of_run(architecture, facts, run_dir), special_tokens(facts)
    tokenizer = load_pair_tokenizer(run_dir, network)
    config = RunConfig(TRANSLATION, network, tokens, dropout)
    model = EncoderDecoder(network, tokens, dropout).to(pick_device(device))
    dtype = pick_precision(precision, model.embedding.weight.device, processes)
    prepare_model(model, config, run_dir, init_from, tokenizer if new_tokenizer else None)
    marks = [marks_of(facts, choice) for choice in data.choices]
    valid = with_marks(valid, data, facts)
    valid = without_long_sentences(valid, tokenizer, position_limit(network))
    data = _within_positions(data, network)
    task = TranslationTask(
        model, tokenizer, data, valid, cache_dir, label_smoothing, options.seed, processes, marks
    )
    check_inputs(run_dir, task.inputs)
    trainer = Trainer(
        model,
        task.as_task(),
        options,
        run_dir,
        processes=processes,
        dtype=dtype,
        tensorboard=tensorboard,
    )
    if processes.is_first:
        write_inputs(run_dir, task.inputs)
        write_config(run_dir, config)
    return trainer.train()


def _check_choices(data: TranslationData, init_from: Path | None) -> None:
    """Raise ValueError for languages and controls of files that a new run will lack.

    This comes before training text is read and a tokenizer is trained on it, which take minutes.
    """
    if init_from is None:
        facts = facts_of_choices(data.choices, lambda _: 0)  # The ids do not matter yet.
    else:
        facts = start_facts(init_from)
    extra = [each.choice for each in data.extra_valid]
    for choice in (*data.choices, data.valid_choice, *extra):
        marks_of(facts, choice)


def _within_positions(data: TranslationData, network: Architecture) -> TranslationData:
    """``data`` with texts that are no longer than the learned positions of a network."""
    filters = data.length_filters
    limit = longest_text(network, filters.max_tokens)
    return replace(data, length_filters=replace(filters, max_tokens=limit))
