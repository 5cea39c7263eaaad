"""Bounds of the schedulers of a translation model."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TranslationLimits:
    """Bounds of a translation scheduler."""

    max_rows: int
    """Hypotheses that one worker decodes in one step, over all sentences."""
    max_sentences: int
    """Sentences that one worker decodes together, if rows suffice."""
    max_queued_texts: int
    max_encode_tokens: int
    """Padded tokens encoded, and padded tokens scored, between two steps."""
    max_cache_bytes: int
    """Memory limit of one worker's caches."""
    spare_cache_bytes: int
    """Memory that one worker's caches may take beyond 1.5 times the need of its sentences."""
    max_run_seconds: float
    """Seconds that a run for heavy callers may take while light ones use the model."""
    run_clock: Callable[[], float] | None = None
    """The clock of runs for `BatchBudget`; None for that of the scheduler."""
    full_rows: int = 0
    """Rows that make a worker full enough, see `WorkerUse`; 0: all workers always decode."""
