"""Trains a causal language model: its data, loss and validation."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from attendant.v1.architecture_pb2 import Architecture
from torch import Tensor

from attendant_export.bundle.manifest import MANIFEST, read_manifest
from attendant_export.data.language_text import (
    LanguageBatch,
    LanguageData,
    LanguageDataset,
)
from attendant_export.data.text_corpus import open_stream
from attendant_export.data.tokenizer import BOS, EOS, PAD, special_token_id
from attendant_export.graphs.attention import check_decoder_heads
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.shapes import with_vocab_size
from attendant_export.models.special_tokens import LanguageModelTokens
from attendant_export.runs.config import LANGUAGE_MODEL, RunConfig, read_config, write_config
from attendant_export.runs.inputs import check_inputs, write_inputs
from attendant_export.train.device import pick_device, pick_precision
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup
from attendant_export.train.loop import Progress, Task, Trainer
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.setup import prepare_model, prepare_tokenizer
from attendant_export.train.vocabulary_loss import summed_cross_entropy

CACHE = "data"
"""Folder of a run that has its encoded text."""


class LanguageModelTask:
    """Batches, loss and validation of a causal language model, for `Trainer`."""

    def __init__(
        self,
        model: CausalLanguageModel,
        train: LanguageDataset,
        valid: LanguageDataset,
        seed: int,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.model, self.train, self.valid = model, train, valid
        self.seed, self.processes = seed, processes

    def as_task(self) -> Task[LanguageBatch]:
        """The interface of this task for `Trainer`."""
        num_batches = self.train.num_batches()
        return Task(
            self.batches, num_batches, self.loss, self.validate, lambda batch: batch.num_targets
        )

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def batches(self, epoch: int) -> Iterator[LanguageBatch]:
        """This process's share of the batches of an epoch, on the model's device."""
        rng = np.random.default_rng((self.seed, epoch))
        for batch in self.train.batches(rng):
            yield batch.share(self.processes.rows, self._device)

    def loss(self, batch: LanguageBatch) -> Tensor:
        """Cross-entropy per token of the whole batch: this process's part of the sum."""
        hidden = self.model(batch.token_ids).flatten(0, 1)  # (tokens, d_model)
        targets = batch.targets.flatten()
        return summed_cross_entropy(self.model.logits, hidden, targets) / batch.num_targets

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """The mean log-probability of a token of the validation text, and the perplexity."""
        total, num_targets = 0.0, 0
        for batch in self.valid.batches():
            own = batch.share(SINGLE_PROCESS.rows, self._device)
            total -= self.loss(own).item() * own.num_targets
            num_targets += own.num_targets
        mean = total / num_targets
        return {"log_probability": mean, "perplexity": math.exp(min(-mean, 700.0))}


def train_language_model(
    architecture: Architecture,
    data: LanguageData,
    options: TrainingOptions,
    run_dir: Path,
    *,
    dropout: float = 0.1,
    device: str = "auto",
    precision: str = "auto",
    init_from: Path | None = None,
    cache_dir: Path | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
    tensorboard: bool = False,
) -> Progress:
    """Train a causal language model in ``run_dir``, or resume it. Returns the progress.

    ``init_from`` is a run folder or a bundle that gives the initial weights, the tokenizer and the
    special tokens; otherwise a tokenizer is trained, and the vocabulary size is its size. Writes
    ``config.json``, ``tokenizer.json``, ``last/``, ``best/``, the history and the encoded text.
    Every one of the ``processes`` must make the same call.

    Raises ValueError if sizes or text differ from those of the run, or sizes from the initial
    weights, for bad lines (see `LanguageData`), and for heads that decoder steps do not support.
    Also raises as `Trainer` and `Trainer.train`.
    """
    check_decoder_heads(architecture)
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    tokenizer = prepare_tokenizer(run_dir, init_from, data.train_tokenizer, processes)
    network, tokens = architecture, _start_tokens(init_from)
    if tokens is None:
        ids = [special_token_id(tokenizer, token) for token in (PAD, BOS, EOS)]
        tokens = LanguageModelTokens(*ids)
        network = with_vocab_size(architecture, tokenizer.get_vocab_size())
    config = RunConfig(LANGUAGE_MODEL, network, tokens, dropout)
    model = CausalLanguageModel(network, tokens, dropout).to(pick_device(device))
    dtype = pick_precision(precision, next(model.parameters()).device, processes)
    prepare_model(model, config, run_dir, init_from)
    check_inputs(run_dir, data.inputs)
    around = ([tokens.bos_id] if tokens.bos_id is not None else [], [tokens.eos_id])
    with processes.first_alone():  # It may write files that the others read.
        streams = [
            open_stream(data, paths, tokenizer, around, cache_dir or run_dir / CACHE)
            for paths in (data.train, [data.valid])
        ]
    train, valid = (
        LanguageDataset(each, data.max_tokens, data.max_batch_tokens) for each in streams
    )
    task = LanguageModelTask(model, train, valid, options.seed, processes)
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
        write_inputs(run_dir, data.inputs)
        write_config(run_dir, config)
    return trainer.train()


def _start_tokens(init_from: Path | None) -> LanguageModelTokens | None:
    """The special tokens of the initial weights. Raises ValueError for another kind of model."""
    if init_from is None:
        return None
    if not (init_from / MANIFEST).exists():
        found = read_config(init_from).tokens
        if not isinstance(found, LanguageModelTokens):
            raise ValueError(f"--init-from {init_from}: is not a language model")
        return found
    manifest = read_manifest(init_from)
    special, has_start = manifest.special_tokens, manifest.decoding.HasField("start_token_id")
    start_id = manifest.decoding.start_token_id if has_start else None
    return LanguageModelTokens(special.pad_id, start_id, special.eos_id)
