"""The application with real tiny models and without a transport."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attendant_server.application.admission import CallAdmission
from attendant_server.application.application import Application, new_application
from attendant_server.application.catalog import Catalog, ServedModel
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


@contextmanager
def running_application(limits: RequestLimits) -> Iterator[Application]:
    """An application with loaded and warmed-up models."""
    settings = Settings(bundles=TINY_BUNDLES, precision="fp32", num_threads=1)
    metrics = NoMetrics()
    loader = ModelLoader(settings, 1, metrics)
    bundles = read_bundles(settings)
    catalog = Catalog([describe_model(bundle) for bundle in bundles], ignore_refusal)
    for model in catalog.descriptions:
        metrics.add_model(model.key, model.kind.label, model.precision, [])
    loaded = [loader.load(bundle) for bundle in bundles]
    engine = Engine({model.bundle.key: model.schedulers for model in loaded}, loader.clock)
    engine.start()
    catalog.open(
        {
            model.bundle.key: ServedModel(
                catalog.find(model.bundle.key),
                model.source_tokenizer,
                model.target_tokenizer,
                model.mask_tokenizer,
                engine,
                ignore_refusal,
            )
            for model in loaded
        }
    )
    with ThreadPoolExecutor(1, "pool") as pool:
        yield new_application(catalog, CallAdmission(8, 60.0, ignore_refusal), limits, pool)
    engine.drain(60.0)
