"""Reports of the engine to its observer, made on the engine's threads."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StepReport:
    """One decoding step over all running rows of a translation model."""

    num_rows: int
    """Rows in use."""
    max_rows: int
    """Rows that the step could have had; equals ``num_rows`` if no further sentence may run."""
    num_waiting: int
    """Texts waiting for rows when the step began."""
    num_output_tokens: int
    """Output tokens of the sentences that this step finished, over all their hypotheses."""
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One run of an encoder, embedder or scorer over a padded batch."""

    graph: str
    """``encoder``, ``scorer``, ``embedder``."""
    num_texts: int
    num_tokens: int
    num_padded_tokens: int
    seconds: float


class Observer(Protocol):
    """Receives the engine's reports. Implementations must be quick and must not raise."""

    def on_step(self, model: str, report: StepReport) -> None:
        """A decoding step has ended."""

    def on_batch(self, model: str, report: BatchReport) -> None:
        """A batch has been run."""

    def on_dropped(self, model: str, reason: str, num_texts: int) -> None:
        """Texts left without an answer; ``reason``: ``cancelled``, ``expired`` or ``failed``."""


class Observers:
    """Passes the engine's reports to several observers, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_step(self, model: str, report: StepReport) -> None:
        """A decoding step has ended."""
        for observer in self._observers:
            observer.on_step(model, report)

    def on_batch(self, model: str, report: BatchReport) -> None:
        """A batch has been run."""
        for observer in self._observers:
            observer.on_batch(model, report)

    def on_dropped(self, model: str, reason: str, num_texts: int) -> None:
        """Texts were left without an answer."""
        for observer in self._observers:
            observer.on_dropped(model, reason, num_texts)
