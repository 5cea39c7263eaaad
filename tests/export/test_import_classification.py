"""Models for classification are imported with their heads and follow the original."""

import random

import pytest
import torch
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.embedding_pb2 import (
    SCORE_FUNCTION_IDENTITY,
    SCORE_FUNCTION_SIGMOID,
    SCORE_FUNCTION_SOFTMAX,
)
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.rebuild import _compare as compare_rebuilt
from attendant_export.importers.checkpoint import Config
from attendant_export.importers.classification import read_classification

from tests.support.checkpoints import FAMILIES
from tests.support.classifiers import write_classifier
from tests.support.drawn_seeds import seeds
from tests.support.imports import import_

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_threads")


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("family", FAMILIES)
def test_a_drawn_classifier_follows_the_original(family, seed, tmp_path):
    num_labels = random.Random(seed).choice((1, 2, 5))
    source = write_classifier(tmp_path / "source", family, num_labels, seed)

    bundle = import_(source, tmp_path / "bundles")

    parity = read_manifest(bundle).parity.original
    assert (parity.num_texts > 50, parity.num_different_token_ids) == (True, 0)
    assert parity.min_cosine >= 0.99999
    (scores,) = parity.label_scores
    assert scores.num_texts > 1.5 * parity.num_texts  # single texts and pairs
    assert scores.max_difference < 1e-4
