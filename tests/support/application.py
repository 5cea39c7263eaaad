"""The application with real tiny models and without a transport."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from attendant_server.application.admission import CallAdmission
from attendant_server.application.application import Application, new_application
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.jobs import JobRunner
from attendant_server.application.model_statistics import ModelStatistics
from attendant_server.application.validation import RequestLimits
from attendant_server.engine.engine import Engine
from attendant_server.loading import ModelLoader, read_bundles
from attendant_server.manifest_description import describe_model
from attendant_server.observability.metrics import NoMetrics
from attendant_server.settings import Settings

TINY_BUNDLES = Path(__file__).parents[1] / "recorded" / "bundles"


def request_limits(**changed: Any) -> RequestLimits:
    """Request limits with some values changed."""
    defaults: dict[str, Any] = {
        "max_texts": 4,
        "max_text_characters": 100,
        "max_beam_size": 8,
        "max_top_k": 100,
        "max_response_bytes": 1_000_000,
        "max_request_seconds": 60.0,
    }
    return RequestLimits(**(defaults | changed))


def ignore_refusal(reason: str) -> None:
    """An observer of refusals that does nothing."""


class NoLifecycle:
    """A lifecycle of models that never change."""

    async def load(self, model: str) -> str:
        """Load nothing."""
        raise NotImplementedError

    async def unload(self, model: str) -> str:
        """Unload nothing."""
        raise NotImplementedError


@contextmanager
def running_application(limits: RequestLimits) -> Iterator[Application]:
    """An application with loaded and warmed-up models."""
    settings = Settings(bundles=TINY_BUNDLES, precision="fp32", num_threads=1)
    metrics = NoMetrics()
    loader = ModelLoader(settings, metrics)
    bundles = read_bundles(settings, ())
    catalog = Catalog(ignore_refusal)
    engine = Engine(loader.num_workers, loader.clock)
    for bundle in bundles:
        description = describe_model(bundle)
        metrics.add_model(description.key, description.kind.label, description.precision, [])
        model = loader.load(bundle)
        engine.add(description.key, model.schedulers)
        catalog.open(
            [
                ServedModel(
                    description,
                    model.source_tokenizer,
                    model.target_tokenizer,
                    model.mask_tokenizer,
                    engine,
                    description.key,
                    ignore_refusal,
                )
            ]
        )
    engine.start()
    with closing(JobRunner(1)) as jobs:
        admission = CallAdmission(8, 60.0, ignore_refusal)
        statistics = ModelStatistics(lambda: None)
        yield new_application(catalog, admission, NoLifecycle(), limits, jobs, statistics)
    engine.drain(60.0)
