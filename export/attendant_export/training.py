"""The training loop that every task shares: schedule, optimizer step, checkpoints, early stop.

Knows nothing of what is trained: a task gives the loss of a batch, the batches of an epoch and a
validation.
"""

import ctypes
import itertools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, Never, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from attendant_export import checkpoint
from attendant_export.history import History

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How long and how fast to train. Whichever limit comes first ends the run."""

    max_steps: int | None = None
    max_epochs: int | None = None
    max_minutes: float | None = None
    learning_rate: float = 2e-3
    warmup_steps: int = 400
    final_learning_rate_ratio: float = 0.02
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    validate_every_steps: int = 1000
    patience: int = 10
    """Stop after so many validations without a better result."""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.max_steps is None and self.max_epochs is None and self.max_minutes is None:
            raise ValueError("one of max_steps, max_epochs and max_minutes must be set")


@dataclass(slots=True)
class Progress:
    """Where a run is; saved with each checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of this epoch already trained on."""
    elapsed_seconds: float = 0.0
    best: float = float("-inf")
    num_worse: int = 0


@dataclass(frozen=True, slots=True)
class Task(Generic[Batch]):
    """What is trained."""

    batches: Callable[[int], Iterator[Batch]]
    """The batches of an epoch; the same for the same epoch number."""
    loss: Callable[[Batch], Tensor]
    """Mean loss of a batch, a scalar."""
    validate: Callable[[], dict[str, float]]
    """Measured values; the first is the one to maximize."""


def pick_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of returning it to the system after each tensor.

    Without it every large activation is mapped and page-faulted afresh: measured at a third of the
    time of a CPU training step. Does nothing where there is no glibc.
    """
    trim_threshold, max_mmaps = -1, -4  # names of mallopt(3)
    with suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(max_mmaps, 0)
        glibc.mallopt(trim_threshold, 2**31 - 1)


def learning_rate_ratio(options: TrainingOptions, step: int, done: float) -> float:
    """Linear warm-up, then linear decay over the fraction ``done`` of the run.

    ``done`` is the fraction of the tightest limit: steps, epochs or minutes. 1.0 is the peak.
    """
    final = options.final_learning_rate_ratio
    return min((step + 1) / options.warmup_steps, final + (1 - final) * max(0.0, 1 - done))


class Trainer(Generic[Batch]):
    """Trains a model on a task, keeping the last and the best checkpoint in ``run_dir``."""

    def __init__(
        self,
        model: nn.Module,
        task: Task[Batch],
        options: TrainingOptions,
        run_dir: Path,
        show_progress: bool = True,
    ) -> None:
        """Resume from ``run_dir/last`` if it is there."""
        keep_freed_memory()
        run_dir.mkdir(parents=True, exist_ok=True)
        self.model, self.task, self.options, self.run_dir = model, task, options, run_dir
        self.show_progress = show_progress
        self.device = next(model.parameters()).device
        self.progress = Progress()
        self.history = History(run_dir)
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=options.learning_rate,
            betas=(0.9, 0.98),
            eps=1e-9,
            weight_decay=options.weight_decay,
            fused=True,
        )
        self._recent: list[float] = []
        self._stop_requested = False
        if (run_dir / "last" / checkpoint.STATE).exists():
            self._resume()

    def train(self) -> Progress:
        """Train until a limit, early stop or SIGTERM; the best weights are loaded at the end.

        A finished run is not trained further.
        """
        if self.is_finished():
            checkpoint.load_weights(self.run_dir / "best" / checkpoint.WEIGHTS, self.model)
            return self.progress
        previous = signal.signal(signal.SIGTERM, self._request_stop)
        try:
            self._loop()
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, previous)
        if self._recent:
            self._validate()
        self._save()
        checkpoint.load_weights(self.run_dir / "best" / checkpoint.WEIGHTS, self.model)
        return self.progress

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
                self._step(batch)
                self.progress.elapsed_seconds = time.monotonic() - started
                self._show(bar)
                if self.progress.step % self.options.validate_every_steps == 0:
                    self._validate()
                    self._save()
                if self._stop_requested or self.is_finished():
                    break

    def _remaining_batches(self) -> Iterator[Batch]:
        progress = self.progress
        while self.options.max_epochs is None or progress.epoch < self.options.max_epochs:
            batches = self.task.batches(progress.epoch)
            for batch in itertools.islice(batches, progress.batch, None):
                progress.batch += 1
                yield batch
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def _step(self, batch: Batch) -> None:
        ratio = learning_rate_ratio(self.options, self.progress.step, self._done())
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * ratio
        self.model.train()
        # What dropout drops depends on the step alone, so that a resumed run goes on exactly.
        torch.manual_seed(self.options.seed * 1_000_003 + self.progress.step)
        with self._autocast():
            loss = self.task.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.max_gradient_norm)
        self.optimizer.step()
        self.progress.step += 1
        self._recent.append(loss.item())

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        if self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def _done(self) -> float:
        """The fraction of the tightest limit that is used up."""
        options, progress = self.options, self.progress
        limits = [
            (progress.step, options.max_steps),
            (progress.epoch, options.max_epochs),
            (progress.elapsed_seconds / 60, options.max_minutes),
        ]
        return max(used / limit for used, limit in limits if limit is not None)

    def is_finished(self) -> bool:
        """Whether a limit is reached or the validations are stale; a stopped run is not."""
        return self.progress.num_worse >= self.options.patience or self._done() >= 1

    def _validate(self) -> None:
        self.model.eval()
        values = self.task.validate()
        target = next(iter(values.values()))
        loss = sum(self._recent) / len(self._recent)
        minutes = self.progress.elapsed_seconds / 60
        self.history.append(
            {"step": self.progress.step, "minutes": minutes, "training_loss": loss, **values}
        )
        self.history.draw()
        self._recent = []
        if target > self.progress.best:
            self.progress.best, self.progress.num_worse = target, 0
            best = self.run_dir / "best"
            best.mkdir(parents=True, exist_ok=True)
            checkpoint.save_weights(best / checkpoint.WEIGHTS, self.model)
        else:
            self.progress.num_worse += 1

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
        last = self.run_dir / "last"
        last.mkdir(parents=True, exist_ok=True)
        checkpoint.save_weights(last / checkpoint.WEIGHTS, self.model)
        checkpoint.save_optimizer(last / checkpoint.OPTIMIZER, self.optimizer)
        checkpoint.write_json(last / checkpoint.STATE, asdict(self.progress))

    def _resume(self) -> None:
        last = self.run_dir / "last"
        checkpoint.load_weights(last / checkpoint.WEIGHTS, self.model)
        checkpoint.load_optimizer(last / checkpoint.OPTIMIZER, self.optimizer)
        self.progress = Progress(**checkpoint.read_json(last / checkpoint.STATE))

    def _request_stop(self, *_: object) -> None:
        self._stop_requested = True
