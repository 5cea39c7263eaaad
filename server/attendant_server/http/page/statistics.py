"""The figures that the page shows of the models which the caller may use."""

import time
from collections.abc import Sequence

import msgspec

from attendant_server.application.application import Application
from attendant_server.application.model_statistics import ModelFigures, ModelLoad
from attendant_server.application.models import ListedModel
from attendant_server.foreign_methods import PAGE
from attendant_server.http.exchanges import Call
from attendant_server.http.json_routes import JsonRoute
from attendant_server.http.tei.messages import TEI_DIALECT
from attendant_server.records import Method


class Duration(msgspec.Struct, kw_only=True):
    """A number of durations, and their sum."""

    count: int = 0
    seconds: float = 0.0


class ModelFigure(msgspec.Struct, kw_only=True):
    """What a model has done since the start of the server, and what it does now."""

    model: str
    """The model, as ``name/version``."""
    is_ready: bool
    num_texts: int
    """Texts without a fault, of calls that were answered."""
    num_queued_texts: int
    num_active_texts: int
    """Sentences that are being decoded, or texts in a batch."""
    calls: Duration
    """Whole calls that were answered."""
    failed_calls: Duration
    queue: Duration
    """Waiting for the model, of answered calls."""


class Statistics(msgspec.Struct, kw_only=True):
    """The figures of all models that the caller may use."""

    seconds: float
    """When the figures were read, on a clock whose zero has no meaning."""
    num_calls: int
    """Calls in progress, of all callers, besides this one."""
    models: Sequence[ModelFigure]


def statistics_route(application: Application) -> JsonRoute:
    """``/page/statistics``, for callers who may list models."""

    async def read(request: None, call: Call) -> Statistics:
        figures, source = application.statistics.read(), application.statistics
        return Statistics(
            seconds=time.monotonic(),
            num_calls=application.admission.num_calls - 1,
            models=[
                _figure(each, figures[each.description.key], source.load(each.description.key))
                for each in application.models.list()
            ],
        )

    return JsonRoute(
        path="/page/statistics",
        verb="GET",
        method=Method(PAGE, "Statistics", "unary"),
        summary="Show what the models have done and have to do",
        dialect=TEI_DIALECT,
        response=Statistics,
        handle=read,
    )


def _figure(listed: ListedModel, figures: ModelFigures, load: ModelLoad) -> ModelFigure:
    return ModelFigure(
        model=listed.description.key,
        is_ready=listed.is_ready,
        num_texts=figures.num_texts,
        num_queued_texts=load.num_queued_texts,
        num_active_texts=load.num_active_texts,
        calls=_duration(figures, "success"),
        failed_calls=_duration(figures, "fail"),
        queue=_duration(figures, "queue"),
    )


def _duration(figures: ModelFigures, name: str) -> Duration:
    count, nanoseconds = figures.durations.get(name, (0, 0))
    return Duration(count=count, seconds=nanoseconds / 1e9)
