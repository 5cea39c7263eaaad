"""Bundles in the repository: the built-in ones, and those of each earlier manifest version."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from attendant_manifest import MANIFEST_VERSION
from attendant_server.bundles import find_bundles, read_bundle
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.engine.embedding_scheduler import EmbeddingScheduler
from attendant_server.engine.encoder_calls import EmbedCall
from attendant_server.engine.translation_scheduler import TranslationScheduler

from tests.support.fake_model import RecordingObserver
from tests.support.limits import embedding_limits, translation_limits
from tests.support.models import embedding_model, translation_model

ROOT = Path(__file__).parents[2]
BUILT_IN = find_bundles(ROOT / "bundles", ())
OLD = [d for v in sorted((ROOT / "tests/data").glob("manifest-*")) for d in find_bundles(v, ())]
MAX_BUILT_IN_BYTES = 100_000_000


def references_of(bundle):
    return json.loads((bundle.directory / bundle.manifest.reference_outputs).read_text("utf-8"))


def run(scheduler, calls):
    for call in calls:
        scheduler.submit(call)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    return [call.future.result()[0] for call in calls]


@pytest.mark.parametrize("directory", [*BUILT_IN, *OLD], ids=lambda d: f"{d.parent.name}")
def test_committed_bundles_are_whole(directory):
    read_bundle(directory, "auto", "cpu").check_files()


@pytest.mark.parametrize("directory", BUILT_IN, ids=lambda d: f"{d.parent.name}")
def test_the_built_in_bundles_have_manifests_of_this_version(directory):
    content = json.loads((directory / "manifest.json").read_text("utf-8"))
    assert content["manifest_version"] == MANIFEST_VERSION


def test_the_built_in_bundles_are_small_enough_to_ship():
    files = [file for directory in BUILT_IN for file in directory.iterdir()]
    assert sum(file.stat().st_size for file in files) < MAX_BUILT_IN_BYTES


@pytest.mark.parametrize(
    ("directory", "precision"),
    [
        pytest.param(directory, precision.name, id=f"{directory.parent.name}-{precision.name}")
        for directory in [*BUILT_IN, *OLD]
        if "bert" not in directory.parent.name
        for precision in read_bundle(directory, "auto", "cpu").manifest.precisions
    ],
)
def test_the_engine_finds_the_reference_translations(directory, precision):
    bundle = read_bundle(directory, precision, "cpu")
    (parity,) = (p for p in bundle.manifest.parity.precisions if p.precision == precision)
    bound = parity.log_probability_bound
    reference = references_of(bundle)
    model = translation_model(bundle)
    for search, beam_size in reference["beam_sizes"].items():
        scheduler = TranslationScheduler(
            "", model, translation_limits(), RecordingObserver(), time.monotonic
        )
        calls = [
            TranslateCall([text["token_ids"]], SearchOptions(text["max_output_tokens"], beam_size))
            for text in reference["texts"][:32]
        ]
        for [found], expected in zip(
            run(scheduler, calls), reference["outputs"][precision][search], strict=False
        ):
            assert_same_or_tied(found, expected, bound)


def assert_same_or_tied(found, expected, bound):
    pairs = zip(found.token_ids, expected["token_ids"], strict=False)
    parting = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    ours, theirs = found.log_probabilities[:parting], expected["log_probabilities"][:parting]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound + 1e-6)
    if parting is not None:  # another processor may decide a near tie differently
        gap = found.log_probabilities[parting] - expected["log_probabilities"][parting]
        assert abs(gap) < 2 * bound


@pytest.mark.parametrize(
    "directory",
    [d for d in [*BUILT_IN, *OLD] if "bert" in d.parent.name],
    ids=lambda d: d.parent.name,
)
def test_the_engine_gives_the_reference_vectors(directory):
    bundle = read_bundle(directory, "int8", "cpu")
    reference = references_of(bundle)
    model = embedding_model(bundle)
    scheduler = EmbeddingScheduler(
        "", model, embedding_limits(), RecordingObserver(), time.monotonic
    )
    texts = reference["texts"]
    calls = [EmbedCall([text["token_ids"]], ("mean_pooled",)) for text in texts]
    expected = reference["outputs"]["int8"]
    for found, norm in zip(run(scheduler, calls), expected["norms"], strict=True):
        assert np.linalg.norm(found["mean_pooled"]) == pytest.approx(norm, rel=0.005)
