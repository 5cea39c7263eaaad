"""Trains word vectors by skip-gram with negative sampling or GloVe: data, losses and validation."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.array_folders import FolderWriter, open_or_build
from attendant_export.data.cooccurrences import (
    WINDOW,
    CooccurrenceBatch,
    CooccurrenceDataset,
    Cooccurrences,
    count_cooccurrences,
)
from attendant_export.data.pair_texts import key_of
from attendant_export.data.skip_grams import SkipGramBatch, SkipGramDataset, SkipGramOptions
from attendant_export.data.static_vectors import counted_frequencies, sif_weights
from attendant_export.data.text_corpus import TextCorpus, open_stream, stream_key
from attendant_export.data.word_stream import WordStream
from attendant_export.data.word_tokenizer import UNKNOWN_ID, train_word_tokenizer
from attendant_export.models.special_tokens import EncoderTokens
from attendant_export.models.static_embedding import static_architecture
from attendant_export.models.word_vectors import GloVe, SkipGram
from attendant_export.runs.config import GLOVE, SKIP_GRAM, RunConfig, write_config
from attendant_export.runs.inputs import check_inputs, write_inputs
from attendant_export.runs.models import WORD_VECTORS
from attendant_export.train.device import pick_device
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup
from attendant_export.train.loop import Progress, Task, Trainer
from attendant_export.train.optimizers import ADAGRAD
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.setup import prepare_model, prepare_tokenizer

CACHE = "data"
"""Folder of a run that has its encoded text."""
X_MAX, ALPHA = 100.0, 0.75
"""The count from which on cells have the full weight, and the exponent below (GloVe, eq. 9)."""
LEARNING_RATE = 0.1
"""Default of the rate for a pair of skip-gram or a cell of GloVe (section 4.2)."""
MAX_VALID_BATCHES = 50


@dataclass(frozen=True, slots=True)
class WordVectorData(TextCorpus):
    """The text of a training and the words that get vectors."""

    max_words: int = 50_000
    min_count: int = 5
    """The occurrences that a word must have in the training text."""
    lower_case: bool = True

    def train_tokenizer(self) -> Tokenizer:
        """The words of the training text; raises ValueError as `documents`."""
        texts = self.documents(self.train)
        return train_word_tokenizer(texts, self.max_words, self.min_count, self.lower_case)


@dataclass(frozen=True, slots=True)
class CooccurrenceOptions:
    """How co-occurrences are counted, and how many a batch has."""

    window: int = WINDOW
    max_pairs: int = 2048


Pairs: TypeAlias = SkipGramOptions | CooccurrenceOptions
"""The options of the pairs of words, which also say what the objective is."""


class SkipGramTask:
    """Batches, loss and validation of skip-gram, for `Trainer`."""

    def __init__(
        self,
        model: SkipGram,
        train: SkipGramDataset,
        valid: Iterable[SkipGramBatch],
        seed: int,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """Validations are on the first batches of ``valid``, always the same ones."""
        self.model, self.train, self.seed, self.processes = model, train, seed, processes
        self.valid = list(islice(valid, MAX_VALID_BATCHES))

    def as_task(self) -> Task[SkipGramBatch]:
        """The interface of this task for `Trainer`."""
        num_batches = self.train.num_batches()
        return Task(
            self.batches,
            num_batches,
            self.loss,
            self.validate,
            size=lambda batch: batch.num_pairs,
            optimizer=ADAGRAD,
        )

    def batches(self, epoch: int) -> Iterator[SkipGramBatch]:
        """This process's share of the batches of an epoch, on the model's device."""
        device = self.model.words.weight.device
        for batch in self.train.batches(np.random.default_rng((self.seed, epoch))):
            yield batch.share(self.processes.rows, device)

    def loss(self, batch: SkipGramBatch) -> Tensor:
        """Minus the objective of a pair (eq. 4), the mean: this process's part of the sum."""
        scores = self.model(batch.words, batch.contexts)  # (words, contexts)
        # log sigmoid(-x) is log sigmoid(x) - x, so one logarithm serves both.
        parts = batch.noise * scores - (batch.near + batch.noise) * F.logsigmoid(scores)
        total: Tensor = parts.sum()
        return total / batch.num_pairs

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """The mean objective of a pair of the validation text, with its negatives."""
        device, total, num_pairs = self.model.words.weight.device, 0.0, 0
        for batch in self.valid:
            own = batch.share(SINGLE_PROCESS.rows, device)
            total -= self.loss(own).item() * own.num_pairs
            num_pairs += own.num_pairs
        return {"log_likelihood": total / num_pairs}


class GloVeTask:
    """Batches, loss and validation of GloVe, for `Trainer`."""

    def __init__(
        self,
        model: GloVe,
        train: Cooccurrences,
        valid: Cooccurrences,
        max_pairs: int,
        seed: int,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """``max_pairs`` is the number of cells of a batch."""
        self.model, self.seed, self.processes = model, seed, processes
        self.train, self.valid = (CooccurrenceDataset(each, max_pairs) for each in (train, valid))

    def as_task(self) -> Task[CooccurrenceBatch]:
        """The interface of this task for `Trainer`."""
        num_batches = self.train.num_batches()
        return Task(
            self.batches,
            num_batches,
            self.loss,
            self.validate,
            size=lambda batch: batch.num_cells,
            optimizer=ADAGRAD,
        )

    def batches(self, epoch: int) -> Iterator[CooccurrenceBatch]:
        """This process's share of the batches of an epoch, on the model's device."""
        device = self.model.words.weight.device
        for batch in self.train.batches(np.random.default_rng((self.seed, epoch))):
            yield batch.share(self.processes.rows, device)

    def loss(self, batch: CooccurrenceBatch) -> Tensor:
        """The weighted squared error of a cell (eq. 8), the mean: this process's part of it."""
        errors = self.model(batch.words, batch.contexts) - batch.counts.log()
        total: Tensor = (cell_weights(batch.counts) * errors**2).sum()
        return total / batch.num_cells

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """How well the co-occurrences of the validation text are estimated.

        The weighted correlation of the estimates with the logarithms of its counts. These are lower
        than those of a longer training text, which a correlation leaves out.
        """
        device = self.model.words.weight.device
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for batch in self.valid.batches(np.random.default_rng(self.seed)):
            own = batch.share(SINGLE_PROCESS.rows, device)
            estimates = self.model(own.words, own.contexts)
            parts.append((cell_weights(own.counts), estimates, own.counts.log()))
        weights, *sides = (torch.cat(each).double() for each in zip(*parts, strict=True))
        first, second = (side - (weights * side).sum() / weights.sum() for side in sides)
        product = (weights * first * second).sum()
        scale = ((weights * first**2).sum() * (weights * second**2).sum()).sqrt()
        return {"correlation": (product / scale.clamp(min=1e-12)).item()}


def cell_weights(counts: Tensor) -> Tensor:
    """The weights of cells with these ``counts`` (eq. 9), from 0 to 1."""
    return (counts / X_MAX).clamp(max=1) ** ALPHA


def train_word_vectors(
    data: WordVectorData,
    pairs: Pairs,
    options: TrainingOptions,
    run_dir: Path,
    *,
    dimensions: int = 256,
    sif_coefficient: float | None = 1e-3,
    device: str = "auto",
    cache_dir: Path | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
    tensorboard: bool = False,
) -> Progress:
    """Train word vectors in ``run_dir``, or resume their training. Returns the progress.

    In the vector of a text, words have the weights of smooth inverse frequency with
    ``sif_coefficient``; None: all words weigh the same. Writes ``config.json``, ``tokenizer.json``,
    ``last/``, ``best/``, the history, and the encoded text and co-occurrences to ``cache_dir``.
    Every one of the ``processes`` must make the same call.

    Raises ValueError if dimensions, options or text differ from those of the run, for bad lines and
    for text without frequent words or without pairs of them. Also raises as `Trainer` and
    `Trainer.train`.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    tokenizer = prepare_tokenizer(run_dir, None, data.train_tokenizer, processes)
    kind = SKIP_GRAM if isinstance(pairs, SkipGramOptions) else GLOVE
    network = static_architecture(tokenizer.get_vocab_size(), dimensions, UNKNOWN_ID)
    tokens = EncoderTokens(UNKNOWN_ID, None, None, None)
    config = RunConfig(kind, network, tokens, dropout=0.0)
    # Sparse gradients of several processes cannot be summed on GPUs.
    model = WORD_VECTORS[kind](network, sparse=processes.size == 1).to(pick_device(device))
    prepare_model(model, config, run_dir, None)
    inputs = [*data.inputs, ("options of words and pairs", _key(data, pairs, sif_coefficient))]
    check_inputs(run_dir, inputs)
    with processes.first_alone():  # It may write files that the others read.
        texts = _Texts(data, tokenizer, cache_dir or run_dir / CACHE)
        counts = texts.train.counts()
        if sif_coefficient is not None:
            weights = sif_weights(counted_frequencies(counts), sif_coefficient)
            model.text_weights.copy_(torch.from_numpy(weights))
        task = _task(model, texts, counts, pairs, options.seed, processes)
    trainer = Trainer(model, task, options, run_dir, processes=processes, tensorboard=tensorboard)
    if processes.is_first:
        write_inputs(run_dir, inputs)
        write_config(run_dir, config)
    return trainer.train()


def _key(data: WordVectorData, pairs: Pairs, sif_coefficient: float | None) -> str:
    words = (data.max_words, data.min_count, data.lower_case, data.are_documents)
    return key_of({"words": words, "pairs": asdict(pairs), "sif_coefficient": sif_coefficient})


class _Texts:
    """The words of both texts, in files that are mapped into memory."""

    def __init__(self, data: WordVectorData, tokenizer: Tokenizer, cache_dir: Path) -> None:
        self._data, self._tokenizer, self._cache_dir = data, tokenizer, cache_dir
        self._vocab_size = tokenizer.get_vocab_size()
        self._around: tuple[list[int], list[int]] = ([], [self._vocab_size])
        self.train, self.valid = (
            WordStream(
                open_stream(data, paths, tokenizer, self._around, cache_dir), self._vocab_size
            )
            for paths in (data.train, [data.valid])
        )

    def cooccurrences(self, window: int) -> Cooccurrences:
        """Those of the training text, from the cache if they are there."""
        key = stream_key(self._data, self._data.train, self._tokenizer, self._around)

        def build(writer: FolderWriter) -> dict[str, int]:
            count_cooccurrences(self.train, window).write(writer)
            return {}

        folder = open_or_build(self._cache_dir / f"cooccurrences-{window}-{key}", build)
        return Cooccurrences.of_folder(folder)

    def no_pairs(self) -> ValueError:
        """The error for a validation text without pairs."""
        return ValueError(f"{self._data.valid}: no two known words are near each other")


def _task(
    model: SkipGram | GloVe,
    texts: _Texts,
    counts: NDArray[np.int64],
    pairs: Pairs,
    seed: int,
    processes: ProcessGroup,
) -> Task[Any]:
    """The task of a model. Raises ValueError for a validation text without pairs."""
    if isinstance(pairs, SkipGramOptions):
        assert isinstance(model, SkipGram)
        train, valid = (SkipGramDataset(each, counts, pairs) for each in (texts.train, texts.valid))
        batches = valid.batches(np.random.default_rng(seed))
        task = SkipGramTask(model, train, batches, seed, processes)
        if not task.valid:
            raise texts.no_pairs()
        return task.as_task()
    assert isinstance(model, GloVe)
    cells = count_cooccurrences(texts.valid, pairs.window)
    if not len(cells):
        raise texts.no_pairs()
    found = texts.cooccurrences(pairs.window)
    return GloVeTask(model, found, cells, pairs.max_pairs, seed, processes).as_task()
