"""Encoders of drawn configurations follow the original implementation, if it is installed."""

import random

import pytest
import torch
from attendant_export.bundle.manifest import read_manifest

from tests.support.checkpoints import FAMILIES, write_checkpoint
from tests.support.drawn_seeds import seeds
from tests.support.imports import import_, read_encoder

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_threads")


ACTIVATIONS = ("gelu", "relu", "gelu_new", "silu")
NAMES = {
    "distilbert": ("hidden_dim", "activation"),
    "modernbert": ("intermediate_size", "hidden_activation", "norm_eps"),
}
"""Width of feed-forward networks, activation and epsilon of norms, in families that name them in
their own way."""


def draw_checkpoint(folder, family, seed):
    """A checkpoint with random weights and a configuration within the options of the family."""
    draw = random.Random(seed)
    write_checkpoint(folder, family)
    config = transformers.AutoConfig.from_pretrained(folder)
    num_heads = draw.randint(1, 4)
    config.num_attention_heads = num_heads
    config.hidden_size = num_heads * draw.choice((8, 16))
    config.num_hidden_layers = draw.randint(1, 4)
    config.max_position_embeddings = draw.randint(110, 140)
    names = NAMES.get(family, ("intermediate_size", "hidden_act", "layer_norm_eps"))
    values = (draw.randint(20, 80), draw.choice(ACTIVATIONS), draw.choice((1e-12, 1e-7, 1e-5)))
    for name, value in zip(names, values, strict=False):
        setattr(config, name, value)
    if family == "modernbert":
        kinds = ("full_attention", "sliding_attention")
        config.layer_types = [draw.choice(kinds) for _ in range(config.num_hidden_layers)]
        config.local_attention = draw.choice((8, 16, 40))
    kind = draw.choice((transformers.AutoModel, transformers.AutoModelForMaskedLM))
    torch.manual_seed(seed)
    model = kind.from_config(config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            around = 1 if "norm" in name.lower() and name.endswith("weight") else 0
            tensor.copy_(torch.randn_like(tensor) * 0.2 + around)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    model.save_pretrained(folder)
    return kind is transformers.AutoModelForMaskedLM


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_of_a_drawn_configuration_follows_the_original(family, seed, tmp_path):
    has_head = draw_checkpoint(tmp_path / "source", family, seed)

    bundle = import_(tmp_path / "source", tmp_path / "bundles")

    parity = read_manifest(bundle).parity.original
    assert (parity.num_texts > 50, parity.num_different_token_ids) == (True, 0)
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
