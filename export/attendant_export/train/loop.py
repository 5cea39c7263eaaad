"""The training loop of all tasks: schedule, optimizer step, checkpoints, early stopping.

Does not depend on models: a task provides the batches of an epoch, the loss of a batch, and a
validation.
"""

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Never, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from attendant_export.runs import checkpoint
from attendant_export.runs.history import History
from attendant_export.train.device import keep_freed_memory
from attendant_export.train.distributed import SINGLE_PROCESS, ProcessGroup

Batch = TypeVar("Batch")
MAX_GRADIENT_NORM = 1.0
"""Longer gradients are scaled down to this norm."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Limits, learning rate and seed of a training. The first limit reached ends the run."""

    max_steps: int | None = None
    max_epochs: int | None = None
    max_minutes: float | None = None
    learning_rate: float = 2e-3
    warmup_steps: int = 400
    final_learning_rate_ratio: float = 0.02
    validate_every_steps: int = 1000
    patience: int = 10
    """Validations without improvement before the run stops early."""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            raise ValueError("one of max_steps, max_epochs and max_minutes must be set")
        positive = ("max_steps", "max_epochs", "max_minutes", "learning_rate", "warmup_steps")
        problems = [
            f"{name} is {value:g}, but must be more than 0"
            for name in (*positive, "validate_every_steps", "patience")
            if (value := getattr(self, name)) is not None and not value > 0
        ]
        if not 0 <= self.seed < 2**32:
            problems.append(f"seed is {self.seed}, but must be 0 to {2**32 - 1}")
        if problems:
            raise ValueError("; ".join(problems))


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


class _SummedLoss(nn.Module):
    """A task's loss as a module. Cancels the averaging of DistributedDataParallel."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], Tensor], num_ranks: int) -> None:
        super().__init__()
        self.model, self.loss, self.num_ranks = model, loss, num_ranks

    def forward(self, batch: Any) -> Tensor:
        return self.loss(batch) * self.num_ranks


class TrainingStopped(Exception):
    """A signal stopped a training. Its progress is saved."""

    def __init__(self, stopped_by: signal.Signals) -> None:
        super().__init__(f"stopped by {stopped_by.name}; run the same command again to continue")
        self.stopped_by = stopped_by


def learning_rate_ratio(options: TrainingOptions, step: int, done: float) -> float:
    """Linear warm-up, then linear decay over the fraction ``done`` of the run.

    ``done`` is the used fraction of the tightest limit: steps, epochs or minutes. The peak is 1.0.
    """
    final = options.final_learning_rate_ratio
    return min((step + 1) / options.warmup_steps, final + (1 - final) * max(0.0, 1 - done))


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
    ) -> None:
        """Resume from ``run_dir/last`` if it exists. Raises ValueError for an empty task."""
        if task.num_batches == 0:
            raise ValueError("there is no text to train on")
        keep_freed_memory()
        run_dir.mkdir(parents=True, exist_ok=True)
        self.model, self.task, self.options, self.run_dir = model, task, options, run_dir
        self.show_progress, self.processes = show_progress and processes.is_first, processes
        self.device, self.dtype = next(model.parameters()).device, dtype
        self.progress = Progress()
        self.history = History(run_dir)
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=options.learning_rate,
            betas=(0.9, 0.98),
            eps=1e-9,
            weight_decay=0.0,
            fused=True,
        )
        self._recent: list[float] = []
        self._received = self._stopped_by = 0
        if processes.is_first:
            checkpoint.find_last(run_dir)  # Repair after a crash, before other processes read.
        processes.wait()
        if (last := checkpoint.find_last(run_dir)) is not None:
            self._resume(last)
        self._loss: Callable[[Batch], Tensor] = task.loss
        if processes.size > 1:
            summed = _SummedLoss(model, task.loss, processes.size)
            # A static graph detects the parameters that a phase does not use.
            self._loss = DistributedDataParallel(summed, static_graph=True)

    def train(self) -> Progress:
        """Train until a limit or an early stop, then load the best weights.

        A finished run is not trained further. Raises TrainingStopped after SIGINT or SIGTERM, which
        end the training after the current step; a second signal ends the process at once.
        """
        with self._stopped_by_signals():
            if not self.is_finished():
                self._loop()
            if self.progress.validated_step != self.progress.step:
                self._save()  # Before the validation, which a stopped process may not survive.
                self._validate()
        self._stopped_by = int(max(row[0] for row in self.processes.gather([self._received])))
        if self._stopped_by:
            raise TrainingStopped(signal.Signals(self._stopped_by))
        checkpoint.load_weights(checkpoint.find_weights(self.run_dir), self.model)
        return self.progress

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        def stop(number: int, _: object) -> None:
            self._received = number
            signal.signal(number, previous[signal.Signals(number)])

        previous = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in previous.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _loop(self) -> None:
        started = time.monotonic() - self.progress.elapsed_seconds
        bar = tqdm(
            total=self.options.max_steps,
            initial=self.progress.step,
            disable=not self.show_progress,
            mininterval=5,
            unit="step",
        )
        with bar:
            for batch in self._remaining_batches():
                loss = self._step(batch)
                self._agree(loss, time.monotonic() - started)
                self._show(bar)
                if self.progress.step % self.options.validate_every_steps == 0:
                    self._validate()
                if self._stopped_by or self.is_finished():
                    break

    def _remaining_batches(self) -> Iterator[Batch]:
        progress = self.progress
        while self.options.max_epochs is None or progress.epoch < self.options.max_epochs:
            batches = self.task.batches(progress.epoch)
            yield from itertools.islice(batches, progress.batch, None)
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def _step(self, batch: Batch) -> float:
        """Train on a batch; returns this process's part of the loss."""
        ratio = learning_rate_ratio(self.options, self.progress.step, self._done())
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * ratio
        self.model.train()
        # Dropout depends only on step and rank, so a resumed run continues exactly.
        seed = self.options.seed * 1_000_003 + self.progress.step
        torch.manual_seed(seed + self.processes.rank * 2**40)
        with self._autocast():
            loss = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.progress.step += 1
        self.progress.batch += 1
        return loss.item() / self.processes.size

    def _agree(self, loss: float, elapsed_seconds: float) -> None:
        """Share the values that decide when all processes stop, so that they stop together."""
        rows = self.processes.gather([self._received, loss, elapsed_seconds])
        signals, losses, times = zip(*rows, strict=True)
        self._stopped_by = int(max(signals))
        self._recent.append(sum(losses))
        self.progress.elapsed_seconds = times[0]

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
        self.model.eval()
        progress, value = self.progress, 0.0
        if self.processes.is_first:
            values = self.task.validate()
            self._write_history(values)
            value = next(iter(values.values()))
        target = self.processes.gather([value])[0][0]
        self._recent = []
        progress.validated_step = progress.step
        if target > progress.best:
            progress.best, progress.num_worse = target, 0
        else:
            progress.num_worse += 1
        self._save()

    def _write_history(self, values: dict[str, float]) -> None:
        row = {"step": self.progress.step, "minutes": self.progress.elapsed_seconds / 60}
        if self._recent:  # Empty right after resuming.
            row["training_loss"] = sum(self._recent) / len(self._recent)
        self.history.append(row | values)
        self.history.draw()

    def _show(self, bar: "tqdm[Never]") -> None:
        bar.update()
        if self.progress.step % 20 == 0:
            rate = self.optimizer.param_groups[0]["lr"]
            left = self.progress.elapsed_seconds * (1 / max(self._done(), 1e-6) - 1)
            bar.set_postfix_str(
                f"epoch {self.progress.epoch} loss {self._recent[-1]:.3f} lr {rate:.1e} "
                f"left {left / 60:.0f} min best {self.progress.best:.2f}",
                refresh=False,
            )

    def _save(self) -> None:
        if not self.processes.is_first:
            return
        checkpoint.save_last(self.run_dir, self.model, self.optimizer, asdict(self.progress))
        self._keep_best()

    def _resume(self, last: Path) -> None:
        checkpoint.load_weights(last / checkpoint.WEIGHTS, self.model)
        checkpoint.load_optimizer(last / checkpoint.OPTIMIZER, self.optimizer)
        state = checkpoint.read_json(last / checkpoint.STATE)
        # Older versions do not write it, but saved only right after validations.
        self.progress = Progress(**{"validated_step": state["step"], **state})
        if self.processes.is_first:
            self._keep_best()  # A crash may have interrupted it.

    def _keep_best(self) -> None:
        if self.progress.validated_step == self.progress.step and self.progress.num_worse == 0:
            checkpoint.keep_last_as_best(self.run_dir)
