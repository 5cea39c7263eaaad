"""What a model's schedulers show of their state, over all workers."""

from collections.abc import Sequence

from attendant_server.application.model_statistics import ModelLoad
from attendant_server.engine.models import CacheFigures
from attendant_server.engine.scheduler import Scheduler
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.observability.metrics import Metrics


def watch_schedulers(
    metrics: Metrics, model: str, schedulers: Sequence[Scheduler], max_cache_bytes: int
) -> None:
    """Show the state of a model's schedulers; ``max_cache_bytes`` is the limit of their caches."""
    first = schedulers[0]
    metrics.watch_model(model, {"attendant_queued_texts": lambda: first.num_waiting})
    own = [each for each in schedulers if isinstance(each, TranslationScheduler)]
    if not own:
        return
    metrics.watch_model(
        model,
        {
            "attendant_active_sentences": lambda: sum(each.num_active_sentences for each in own),
            "attendant_max_active_sentences": lambda: sum(each.max_sentences for each in own),
            "attendant_rows_used": lambda: sum(each.num_active for each in own),
            "attendant_max_rows": lambda: sum(each.max_rows for each in own),
            "attendant_max_step_rows": lambda: own[0].max_rows,
            "attendant_max_cache_bytes": lambda: max_cache_bytes,
        },
    )
    metrics.watch_caches(model, lambda: _total([each.pool.figures for each in own]))


def load_of(schedulers: Sequence[Scheduler]) -> ModelLoad:
    """What the schedulers of a model have to do."""
    active = (
        each.num_active_sentences if isinstance(each, TranslationScheduler) else each.num_active
        for each in schedulers
    )
    return ModelLoad(schedulers[0].num_waiting, sum(active))


def _total(figures: Sequence[CacheFigures]) -> CacheFigures:
    return CacheFigures(*map(sum, zip(*figures, strict=True)))
