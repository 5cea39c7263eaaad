"""Tensors of a checkpoint that have old names, or repeat other tensors."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import FAMILIES, write_checkpoint
from tests.support.imports import read_encoder
from tests.support.marian_checkpoints import write_marian

EMBEDDINGS = {
    "albert": "embeddings.word_embeddings",
    "distilbert": "embeddings.word_embeddings",
    "modernbert": "embeddings.tok_embeddings",
}
REPEATING = {
    "albert": "predictions.decoder",
    "bert": "cls.predictions.decoder",
    "distilbert": "vocab_projector",
    "modernbert": "decoder",
}


def change(folder, rename=lambda name: name, add=()):
    """Rename the tensors of a checkpoint, and add some."""
    path = folder / "model.safetensors"
    tensors = {rename(name): tensor for name, tensor in load_file(path).items()}
    save_file(tensors | dict(add), path)


def old_name(name):
    for present, old in (("weight", "gamma"), ("bias", "beta")):
        name = name.replace(f"LayerNorm.{present}", f"LayerNorm.{old}")
    return name


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_norms_may_have_the_names_of_old_checkpoints(family, tmp_path):
    source = write_checkpoint(tmp_path / "source", family, prefix=f"{family}.")
    expected = read_encoder(source).model.state_dict()
    change(source, old_name)
    found = read_encoder(source).model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_norm_with_an_old_and_a_present_name_is_refused(tmp_path, refusal):
    source = write_checkpoint(tmp_path / "source", "bert")
    change(source, add={"embeddings.LayerNorm.gamma": torch.ones(32)})
    assert "is given twice" in refusal(source)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_that_is_not_the_table_of_embeddings_is_refused(family, tmp_path, refusal):
    source = write_checkpoint(tmp_path / "source", family)
    embedding = f"{EMBEDDINGS.get(family, 'embeddings.word_embeddings')}.weight"
    repeating = f"{REPEATING.get(family, 'lm_head.decoder')}.weight"
    table = load_file(source / "model.safetensors")[embedding]
    change(source, add={repeating: table.clone()})
    assert read_encoder(source).model.mask_head is not None
    change(source, add={repeating: table + 1})
    message = f"{repeating} differs from {embedding}, which is not supported"
    assert message in refusal(source)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.encoder.embed_tokens.weight"])
def test_a_tied_table_of_other_values_is_refused(name, tmp_path, refusal):
    source = write_marian(tmp_path / "source")
    table = load_file(source / "model.safetensors")["model.shared.weight"]
    change(source, add={name: table + 1})
    message = f"{name} differs from model.shared.weight, which is not supported"
    assert message in refusal(source)
