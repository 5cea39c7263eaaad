"""The training loop of all tasks: schedule, optimizer step, checkpoints, early stopping.

Does not depend on models: a task provides the batches of an epoch, the loss of a batch, and a
validation.
"""

import itertools
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Never, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from attendant_export.runs import checkpoint
from attendant_export.runs.history import History
from attendant_export.runs.tensorboard import TensorBoard
from attendant_export.stopping import Interrupted, Stopped, StopSignals
from attendant_export.train.averaging import WeightAverage
from attendant_export.train.device import keep_freed_memory
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup
from attendant_export.train.optimizers import ADAMW, OptimizerChoice
from attendant_export.train.schedule import (
    TrainingOptions,
    describe_short_run,
    learning_rate_ratio,
)

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")
SHOWN_STEPS = 20
"""Steps between two updates of the progress bar, and between two points of curves of the loss."""
STEPS_TO_JUDGE = 8
"""Steps after which the number of steps of the run is estimated."""


@dataclass(slots=True)
class Progress:
    """The progress of a run, saved with each checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Number of batches of the current epoch that are done."""
    elapsed_seconds: float = 0.0
    best: float = float("-inf")
    num_worse: int = 0
    """Number of validations since the best one."""
    validated_step: int | None = None
    """Step of the latest validation."""


@dataclass(frozen=True, slots=True)
class Task(Generic[Batch]):
    """The data, loss and validation of a training."""

    batches: Callable[[int], Iterator[Batch]]
    """This process's share of the batches of an epoch, reproducible by the epoch number."""
    num_batches: int
    """Number of batches of an epoch, approximate if epochs differ."""
    loss: Callable[[Batch], Tensor]
    """The contribution of a share to the mean loss of the whole batch, a scalar."""
    validate: Callable[[], dict[str, float]]
    """Metrics on held-out data. The first one is maximized."""
    size: Callable[[Batch], int] = lambda _: 1
    """The number of items that the mean loss of a whole batch is over, such as target tokens."""
    optimizer: OptimizerChoice = ADAMW


class TrainingDiverged(Exception):
    """The loss of a training, or its gradient, is not finite. Its last checkpoint is kept."""


class Trainer(Generic[Batch]):
    """Trains a model on a task and keeps the last and the best checkpoint in ``run_dir``.

    Several ``processes`` train like one: each computes its share of every batch, and gradients are
    summed. Only the first process validates and writes files. ``dtype`` is that of the products;
    weights and optimizer stay in float32.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task[Batch],
        options: TrainingOptions,
        run_dir: Path,
        show_progress: bool = True,
        processes: ProcessGroup = SINGLE_PROCESS,
        dtype: torch.dtype = torch.float32,
        tensorboard: bool = False,
    ) -> None:
        """Resume from ``run_dir/last`` if it exists. ``tensorboard``: write curves for TensorBoard.

        Raises ValueError for an empty task, and OSError if the disk has no space for checkpoints.
        """
        if task.num_batches == 0:
            raise ValueError("there is no text to train on")
        keep_freed_memory()
        run_dir.mkdir(parents=True, exist_ok=True)
        checkpoint.check_space(model, run_dir, options.keep_checkpoints)
        self.model, self.task, self.options, self.run_dir = model, task, options, run_dir
        self.show_progress, self.processes = show_progress and processes.is_first, processes
        self.device, self.dtype = next(model.parameters()).device, dtype
        self.progress = Progress()
        self.history = History(run_dir)
        self._board = TensorBoard(run_dir) if tensorboard and processes.is_first else None
        self.optimizer = task.optimizer.make(model.parameters(), lr=options.learning_rate)
        decay = options.average_decay
        self._average = WeightAverage(model, decay) if decay else None
        self._recent: list[float] = []
        self._signals, self._stopped_by = StopSignals(self.show_progress), 0
        if processes.is_first:
            checkpoint.find_last(run_dir)  # Repair after a crash, before other processes read.
        processes.wait()
        if (last := checkpoint.find_last(run_dir)) is not None:
            self._resume(last)
        self._loss: Callable[[Batch], Tensor] = processes.summed(model, task.loss)

    def train(self) -> Progress:
        """Train until a limit or an early stop, then load the best weights.

        A finished run is not trained further. Raises Stopped after SIGINT, SIGTERM or
        SIGHUP, which end the training after the current step, or in the middle of a validation; a
        second one ends the process at once. Raises TrainingDiverged if the loss is not finite.
        """
        with self._signals.noted(), self._closing_board():
            if not self.is_finished():
                self._loop()
            if self.progress.validated_step != self.progress.step:
                self._save()  # Before the validation, which a stopped process may not survive.
                if not self._stopped_by:
                    self._validate()
            self.processes.wait()  # The first one may still write what the others read below.
        if self._stopped_by:
            raise Stopped(signal.Signals(self._stopped_by))
        checkpoint.load_weights(checkpoint.find_weights(self.run_dir), self.model)
        return self.progress

    @contextmanager
    def _closing_board(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self._board is not None:
                self._board.close()

    def _loop(self) -> None:
        started = time.monotonic() - self.progress.elapsed_seconds
        bar = tqdm(
            initial=self.progress.step, disable=not self.show_progress, mininterval=5, unit="step"
        )
        with bar:
            for number, batches in enumerate(self._remaining_batches(), 1):
                loss = self._step(batches)
                self._agree(loss, time.monotonic() - started)
                self._show(bar)
                if number == STEPS_TO_JUDGE:
                    bar.clear()
                    self._warn_of_short_run()
                if self._stopped_by:
                    break
                if self.progress.step % self.options.validate_every_steps == 0:
                    self._validate()
                if self._stopped_by or self.is_finished():
                    break

    def _warn_of_short_run(self) -> None:
        warning = describe_short_run(self.options, self.progress.step / self._done())
        if warning is not None and self.processes.is_first:
            logger.warning("%s", warning)

    def _remaining_batches(self) -> Iterator[list[Batch]]:
        """The batches of each step. The last step of an epoch may have fewer."""
        progress = self.progress
        while self.options.max_epochs is None or progress.epoch < self.options.max_epochs:
            batches = itertools.islice(self.task.batches(progress.epoch), progress.batch, None)
            while of_step := list(itertools.islice(batches, self.options.accumulate_steps)):
                yield of_step
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def _step(self, batches: list[Batch]) -> float:
        """Train on ``batches`` as on one large batch; returns this process's part of the loss."""
        ratio = learning_rate_ratio(self.options, self.progress.step, self._done())
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * ratio
        self.model.train()
        # Dropout depends only on step and rank, so a resumed run continues exactly.
        seed = self.options.seed * 1_000_003 + self.progress.step
        torch.manual_seed(seed + self.processes.rank * 2**40)
        self.optimizer.zero_grad(set_to_none=True)
        sizes = [self.task.size(batch) for batch in batches]
        scale = sum(sizes) if self.task.optimizer.sums_items else 1
        shares = [size / sum(sizes) for size in sizes]
        loss = sum(map(self._add_gradient, batches, shares, itertools.repeat(scale)))
        norm = self.task.optimizer.limit(self.model.parameters())
        self.progress.step += 1
        self._check_finite(norm)  # Of the summed gradients, so all processes agree.
        self.optimizer.step()
        if self._average is not None:
            self._average.update(self.progress.step)
        self.progress.batch += len(batches)
        return loss

    def _add_gradient(self, batch: Batch, share: float, scale: float) -> float:
        """Add ``scale`` times the gradient of the loss of a batch times ``share``.

        Returns this process's part of the loss.
        """
        with self._autocast():
            loss = self._loss(batch) * share
        (loss * scale).backward()
        return loss.item() / self.processes.size

    def _agree(self, loss: float, elapsed_seconds: float) -> None:
        """Share the values that decide when all processes stop, so that they stop together."""
        rows = self.processes.gather([self._signals.received, loss, elapsed_seconds])
        signals, losses, times = zip(*rows, strict=True)
        self._stopped_by = int(max(signals))
        self._check_finite(sum(losses))
        self._recent.append(sum(losses))
        self.progress.elapsed_seconds = times[0]

    def _check_finite(self, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"{self.run_dir}: the loss or its gradient is {value} in step "
                f"{self.progress.step}; the last checkpoint and the best one are kept. Lower "
                "the learning rate or lengthen the warm-up"
            )

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _done(self) -> float:
        """The used fraction of the tightest limit."""
        options, progress = self.options, self.progress
        limits = [
            (progress.step, options.max_steps),
            (progress.epoch + min(progress.batch / self.task.num_batches, 1), options.max_epochs),
            (progress.elapsed_seconds / 60, options.max_minutes),
        ]
        return max(used / limit for used, limit in limits if limit is not None)

    def is_finished(self) -> bool:
        """Whether a limit or an early stop is reached; false for a run that a signal stopped."""
        return self.progress.num_worse >= self.options.patience or self._done() >= 1

    def _validate(self) -> None:
        """Validate and save. A signal ends the validation, and then nothing is saved."""
        self.model.eval()
        progress, values = self.progress, {"": 0.0}
        if self.processes.is_first:
            try:
                with self._averaged(), self._signals.interrupting():
                    values = self.task.validate()
            except Interrupted:
                logger.info("the validation of step %d was interrupted", progress.step)
        row = [self._signals.received, next(iter(values.values()))]
        (stopped_by, target), *_ = self.processes.gather(row)
        self._stopped_by = int(stopped_by)
        if self._stopped_by:
            return
        if self.processes.is_first:
            self._write_history(values)
        self._recent = []
        progress.validated_step = progress.step
        if target > progress.best:
            progress.best, progress.num_worse = target, 0
        else:
            progress.num_worse += 1
        self._save()
        if self.processes.is_first and (num_kept := self.options.keep_checkpoints):
            checkpoint.keep_last(self.run_dir, progress.step, num_kept)

    def _write_history(self, values: dict[str, float]) -> None:
        row = {"step": self.progress.step, "minutes": self.progress.elapsed_seconds / 60}
        if self._recent:  # Empty right after resuming.
            row["training_loss"] = _mean(self._recent)
            row["learning_rate"] = self._learning_rate()
        self.history.append(row | values)
        self.history.draw()
        if self._board is not None:
            self._board.write(self.progress.step, values)

    def _learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _show(self, bar: "tqdm[Never]") -> None:
        bar.update()
        if self.progress.step % SHOWN_STEPS == 0:
            bar.total = math.ceil(self.progress.step / self._done())
            rate = self._learning_rate()
            if self._board is not None:
                loss = _mean(self._recent[-SHOWN_STEPS:])
                values = {"training_loss": loss, "learning_rate": rate}
                self._board.write(self.progress.step, values)
            left = self.progress.elapsed_seconds * (1 / max(self._done(), 1e-6) - 1)
            bar.set_postfix_str(
                f"epoch {self.progress.epoch} loss {self._recent[-1]:.3f} lr {rate:.1e} "
                f"left {left / 60:.0f} min best {self.progress.best:.2f}",
                refresh=False,
            )

    def _save(self) -> None:
        if not self.processes.is_first:
            return
        state = asdict(self.progress)
        average = None if self._average is None else self._average.applied
        checkpoint.save_last(self.run_dir, self.model, self.optimizer, state, average)
        self._keep_best()

    def _averaged(self) -> AbstractContextManager[None]:
        """A context in which the model has the average of its weights, if there is one."""
        return nullcontext() if self._average is None else self._average.applied()

    def _resume(self, last: Path) -> None:
        checkpoint.load_weights(last / checkpoint.WEIGHTS, self.model)
        checkpoint.load_optimizer(last / checkpoint.OPTIMIZER, self.optimizer)
        if self._average is not None:
            self._average.load(checkpoint.read_average(last))
        state = checkpoint.read_json(last / checkpoint.STATE)
        # Older versions do not write it, but saved only right after validations.
        self.progress = Progress(**{"validated_step": state["step"], **state})
        if self.processes.is_first:
            self._keep_best()  # A crash may have interrupted it.

    def _keep_best(self) -> None:
        if self.progress.validated_step == self.progress.step and self.progress.num_worse == 0:
            checkpoint.keep_last_as_best(self.run_dir)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
