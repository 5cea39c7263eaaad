"""Encoders of drawn configurations follow the original implementation, if it is installed."""

import pytest
import torch
from attendant_export.bundle.manifest import read_manifest

from tests.support.checkpoints import FAMILIES, write_checkpoint
from tests.support.drawn_encoders import draw_checkpoint
from tests.support.drawn_seeds import seeds
from tests.support.imports import import_, read_encoder

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_threads")


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_of_a_drawn_configuration_follows_the_original(family, seed, tmp_path):
    has_head = draw_checkpoint(tmp_path / "source", family, seed)

    bundle = import_(tmp_path / "source", tmp_path / "bundles")

    parity = read_manifest(bundle).parity.original
    assert (parity.num_texts >= 12, parity.num_different_token_ids) == (True, 0)
    assert parity.min_cosine >= 0.99999
    assert parity.vectors[0].embeddings.min_cosine >= 0.99999
    if has_head:
        assert largest_difference_of_heads(tmp_path / "source") < 2e-4


@torch.inference_mode()
def largest_difference_of_heads(source):
    """Of the scores of the vocabulary, at every position of a random text."""
    ours = read_encoder(source).model
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(source).eval()
    token_ids = torch.arange(5, 60)[None]
    found = ours.mask_logits(ours(token_ids)[0])
    return (found - theirs(token_ids).logits[0]).abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_of_every_family_follows_the_original(family, tmp_path):
    assert largest_difference_of_heads(write_checkpoint(tmp_path / family, family)) < 1e-4
