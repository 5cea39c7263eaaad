"""The metrics of the models that a server has at the moment."""

from collections.abc import Callable, Sequence
from functools import partial

from attendant_server.application.descriptions import ModelDescription
from attendant_server.application.model_statistics import ModelStatistics
from attendant_server.engine.scheduler import Scheduler
from attendant_server.observability.metrics import Metrics
from attendant_server.observability.scheduler_gauges import load_of, watch_schedulers


class ModelSeries:
    """Begins and ends the series of models, and counts the changes of models."""

    def __init__(
        self,
        metrics: Metrics,
        status_names: Sequence[str],
        max_queued_texts: int,
        is_serving: Callable[[ModelDescription], bool],
        statistics: ModelStatistics,
    ) -> None:
        """``is_serving`` says whether a model can be called; ``statistics`` show loads, too."""
        self._metrics, self._status_names = metrics, status_names
        self._max_queued_texts, self._is_serving = max_queued_texts, is_serving
        self._statistics = statistics
        self.on_refused = metrics.on_refused
        """Receives the reason of each refusal."""
        self.on_change = metrics.on_model_change
        """Receives the result of each change of the models."""

    def add(self, model: ModelDescription) -> None:
        """Begin the series of a model, or describe its replacement."""
        self._metrics.add_model(model.key, model.kind.label, model.precision, self._status_names)
        self._metrics.watch_model(
            model.key,
            {
                "attendant_model_serving": partial(self._is_serving, model),
                "attendant_max_queued_texts": lambda: self._max_queued_texts,
            },
        )

    def watch(self, model: str, schedulers: Sequence[Scheduler], max_cache_bytes: int) -> None:
        """Show the state of a loaded model; ``max_cache_bytes`` is the limit of its caches."""
        watch_schedulers(self._metrics, model, schedulers, max_cache_bytes)
        self._statistics.watch(model, lambda: load_of(schedulers))

    def remove(self, model: str) -> None:
        """End the series of a model. Its calls have ended."""
        self._metrics.remove_model(model)
        self._statistics.forget(model)
