"""What the engine tells whoever watches it. Reports are made on the engine's thread."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StepReport:
    """One decoding step over all running rows of a translation model."""

    num_rows: int
    """Rows that were running."""
    max_rows: int
    """Rows that the step could have had; with all sentences that may run, the rows of the step."""
    num_waiting: int
    """Texts that were waiting for rows when the step began."""
    num_output_tokens: int
    """Tokens of hypotheses that were completed by this step, over all their hypotheses."""
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
    """Receives the reports; must be quick and must not raise."""

    def on_step(self, model: str, report: StepReport) -> None:
        """A decoding step has ended."""

    def on_batch(self, model: str, report: BatchReport) -> None:
        """A batch has been run."""

    def on_dropped(self, model: str, reason: str, num_texts: int) -> None:
        """Texts left without an answer: ``cancelled``, ``expired`` or ``failed``."""
