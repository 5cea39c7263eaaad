"""Tensors of a checkpoint that have old names, or repeat other tensors."""

import numpy as np
import onnxruntime
import pytest
import torch
from attendant_export.bundle.manifest import read_manifest
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import FAMILIES, WIDTH, change_json, write_checkpoint
from tests.support.imports import import_, read_encoder
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
    "electra": "generator_lm_head",
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


@pytest.mark.parametrize("is_stated", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_with_a_table_of_its_own_scores_as_in_the_original(
    family, is_stated, tmp_path, caplog
):
    transformers = pytest.importorskip("transformers")
    source = write_checkpoint(tmp_path / "source", family)
    embedding = f"{EMBEDDINGS.get(family, 'embeddings.word_embeddings')}.weight"
    repeating = REPEATING.get(family, "lm_head.decoder")
    table = load_file(source / "model.safetensors")[embedding]
    bias = torch.linspace(-1, 1, len(table))
    added = {f"{repeating}.weight": table.clone(), f"{repeating}.bias": bias}
    change(source, add=added)
    assert read_encoder(source).model.architecture.head.is_tied

    change(source, add=added | {f"{repeating}.weight": table.flip(0) * 1.5})
    if is_stated:
        change_json(source / "config.json", tie_word_embeddings=False)
    model = read_encoder(source).model
    assert not model.architecture.head.is_tied
    warning = f"{repeating}.weight differs from the table of embeddings"
    assert (warning in caplog.text) == (not is_stated)
    original = transformers.AutoModelForMaskedLM.from_pretrained(source).eval()
    token_ids = torch.arange(5, 40)[None]
    with torch.inference_mode():
        theirs, ours = original(token_ids).logits, model.mask_logits(model(token_ids))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_head_that_is_not_tied_and_has_no_table_is_refused(tmp_path, refusal):
    source = write_checkpoint(tmp_path / "source", "bert")
    change_json(source / "config.json", tie_word_embeddings=False)
    names = "cls.predictions.decoder.weight, cls.predictions.decoder.bias"
    assert f"tie_word_embeddings is False, but the weights lack {names}" in refusal(source)


def test_a_bundle_fills_masks_with_a_table_of_its_own(tmp_path):
    source = write_checkpoint(tmp_path / "source", "bert")
    table = load_file(source / "model.safetensors")["embeddings.word_embeddings.weight"]
    change(source, add={"cls.predictions.decoder.weight": table.flip(0)})
    bundle = import_(source, tmp_path / "bundles", "--precisions", "fp32,int8")
    assert not read_manifest(bundle).architecture.head.is_tied
    hidden = np.random.default_rng(0).normal(size=(3, WIDTH)).astype(np.float32)
    model = read_encoder(source).model
    with torch.inference_mode():
        best = model.mask_logits(torch.from_numpy(hidden)).topk(4).indices
    for precision in read_manifest(bundle).precisions:
        session = onnxruntime.InferenceSession(bundle / precision.mlm_head.path)
        feeds = {"hidden": hidden, "top_k": np.array([4])}
        found, _ = session.run(["candidate_ids", "candidate_probabilities"], feeds)
        if precision.name == "fp32":
            assert found.tolist() == best.tolist()
        assert found[:, 0].tolist() == best[:, 0].tolist()


@pytest.mark.parametrize("name", ["lm_head.weight", "model.encoder.embed_tokens.weight"])
def test_a_tied_table_of_other_values_is_refused(name, tmp_path, refusal):
    source = write_marian(tmp_path / "source")
    table = load_file(source / "model.safetensors")["model.shared.weight"]
    change(source, add={name: table + 1})
    message = f"{name} differs from model.shared.weight, which is not supported"
    assert message in refusal(source)
