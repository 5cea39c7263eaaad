"""Model runs return their memory to the system on request."""

from collections.abc import Callable
from pathlib import Path

import pytest
from attendant_server.bundles import read_bundle
from attendant_server.runtime.model_graphs import RunCounter
from attendant_server.runtime.translation_model import OnnxTranslationModel
from attendant_server.system.memory import return_freed_memory

from tests.support.models import embedding_model

LONG = [*[9] * 62, 2]


def resident_bytes() -> int:
    return_freed_memory()
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def score(folder: Path) -> tuple[object, Callable[[int], object]]:
    model = OnnxTranslationModel(read_bundle(folder, "fp32", "cpu"), 1, "cpu", RunCounter(2))
    return model, lambda num_texts: model.score([(LONG, LONG)] * num_texts)


def encode(folder: Path) -> tuple[object, Callable[[int], object]]:
    model = OnnxTranslationModel(read_bundle(folder, "fp32", "cpu"), 1, "cpu", RunCounter(2))
    return model, lambda num_texts: model.encode([LONG] * num_texts)


@pytest.mark.parametrize("runs", [score, encode])
def test_a_translation_model_gives_back_what_its_largest_run_took(translation_bundle, runs):
    model, run = runs(translation_bundle)
    check_release(model, run)


def test_an_embedding_model_gives_back_what_its_largest_run_took(embedding_bundle):
    model = embedding_model(read_bundle(embedding_bundle, "fp32", "cpu"))
    check_release(model, lambda num_texts: model.embed([LONG] * num_texts, ["mean_pooled"]))


def check_release(model, run):
    run(1)
    before = resident_bytes()
    run(1000)
    kept = resident_bytes() - before
    assert kept > 20e6
    model.release_memory()
    assert resident_bytes() - before < 0.3 * kept
    run(1)
