"""Imported models are compared with the original implementation, if it is installed."""

import logging
import shutil

import numpy as np
import pytest
import torch
from attendant.v1.architecture_pb2 import RelativePositions
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.rebuild import _compare as compare_rebuilt
from attendant_export.bundle.reference_outputs import read_embedding_outputs
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.special_tokens import read_tokenizer
from attendant_export.models.relative_positions import buckets
from attendant_export.verify import original
from attendant_export.verify.embedding import EmbeddingGraphs
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.original import compare_with_original
from safetensors.torch import load_file, save_file

from tests.support.bundles import one_thread
from tests.support.checkpoints import FAMILIES, write_checkpoint
from tests.support.imports import read_encoder

pytestmark = pytest.mark.usefixtures("quiet_threads")


@pytest.fixture
def without_transformers(monkeypatch):
    monkeypatch.setattr(original, "find_spec", lambda name: None)


def import_(source, bundles, *options):
    main(["import", str(source), "--bundles-dir", str(bundles), *options])
    return bundles / source.name / "1"


def inspected(bundle, capsys):
    capsys.readouterr()
    main(["inspect", str(bundle)])
    return capsys.readouterr().out


def test_without_the_original_a_bundle_says_that_it_was_not_compared(
    tmp_path, without_transformers, capsys
):
    source = write_checkpoint(tmp_path / "source", "bert", has_head=False)
    bundle = import_(source, tmp_path / "bundles")
    assert not read_manifest(bundle).parity.HasField("original")
    assert "Not compared: the original implementation" in (bundle / "MODEL_CARD.md").read_text()
    assert "original    not compared\n" in inspected(bundle, capsys)


@pytest.mark.parametrize("kind", ["embedding", "translation"])
def test_without_the_original_a_verification_against_it_fails(
    kind, request, tmp_path, without_transformers, capsys
):
    bundle = request.getfixturevalue(f"{kind}_bundle")
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(bundle), "--against", str(tmp_path)])
    assert "needs transformers: install attendant-export[verify]" in capsys.readouterr().err


class ModelAsOriginal:
    """The PyTorch model of an imported checkpoint in the place of the original."""

    implementation, version = "transformers", "0"

    def __init__(self, source):
        self.model, self.tokenizer = read_encoder(source).model, read_tokenizer(Checkpoint(source))
        self.noise, self.layers, self.renumbered = 0.0, slice(None), ""

    def token_ids(self, text):
        return [0, 2] if text == self.renumbered else self.tokenizer.encode(text).ids

    @torch.inference_mode()
    def hidden_states(self, token_ids):
        states = [h.numpy() for h in self.model.hidden_states(torch.tensor([list(token_ids)]))]
        states[1] = states[1] + self.noise * np.sign(states[1]) * (states[1] > 0)
        return states[self.layers]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A checkpoint and its bundle of fp32 and int8."""
    folder = tmp_path_factory.mktemp("imported")
    source = write_checkpoint(folder / "source", "roberta", has_head=False)
    with one_thread():
        return source, import_(source, folder / "bundles", "--precisions", "fp32,int8")


@pytest.fixture
def compare(imported):
    """Compares the bundle with an original, on its reference texts."""
    _, bundle = imported
    manifest = read_manifest(bundle)
    texts = read_embedding_outputs(bundle, manifest)["texts"]

    def run(original, precisions=("fp32", "int8")):
        graphs = {
            p.name: EmbeddingGraphs(bundle, p, manifest)
            for p in manifest.precisions
            if p.name in precisions
        }
        return compare_with_original(
            original, {t["text"]: t["token_ids"] for t in texts}, graphs, "mean"
        )

    return run


def test_all_layers_and_the_vectors_of_all_precisions_are_compared(imported, compare):
    parity = compare(ModelAsOriginal(imported[0]))
    assert (parity.num_texts >= 12, parity.num_different_token_ids) == (True, 0)
    assert parity.min_cosine >= 0.99999
    assert 0 < parity.max_difference < 1e-4
    cosines = {each.precision: each.embeddings.min_cosine for each in parity.vectors}
    assert cosines["fp32"] >= 0.99999
    assert 0.99 < cosines["int8"] < cosines["fp32"]


def test_a_layer_that_differs_fails_although_the_vectors_are_equal(imported, compare):
    other = ModelAsOriginal(imported[0])
    other.noise = 0.05
    with pytest.raises(ParityError, match="hidden states differ from transformers 0: the smallest"):
        compare(other)


def test_other_numbers_of_layers_fail(imported, compare):
    other = ModelAsOriginal(imported[0])
    other.layers = slice(-2, None)
    with pytest.raises(ParityError, match="transformers has 1 layers, not 2"):
        compare(other)


def test_a_bundle_of_int8_is_told_from_another_model(imported, compare):
    other = ModelAsOriginal(imported[0])
    assert compare(other, ["int8"]).vectors[0].embeddings.mean_cosine > 0.99
    torch.manual_seed(5)
    torch.nn.init.normal_(other.model.encoder.layers[0].self_attention.output.weight)
    with pytest.raises(ParityError, match="int8 vectors have a mean cosine of only"):
        compare(other, ["int8"])


def test_texts_with_other_token_ids_are_counted_and_one_is_named(imported, compare, caplog):
    other = ModelAsOriginal(imported[0])
    other.renumbered = "No."
    with caplog.at_level(logging.WARNING):
        parity = compare(other)
    assert parity.num_different_token_ids == 1
    assert (
        f"gives other token ids for 1 of {parity.num_texts} texts, first for 'No.'" in caplog.text
    )


@pytest.fixture
def transformers():
    """The original implementation; without it, a test is skipped."""
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_follows_the_original(family, transformers, tmp_path, capsys):
    source = write_checkpoint(tmp_path / family, family)

    bundle = import_(source, tmp_path / "bundles")

    parity = read_manifest(bundle).parity.original
    assert (parity.implementation, parity.implementation_version) == (
        "transformers",
        transformers.__version__,
    )
    assert (parity.num_texts >= 12, parity.num_different_token_ids) == (True, 0)
    assert parity.min_cosine >= 0.99999
    assert parity.vectors[0].embeddings.min_cosine >= 0.99999
    line = f"transformers {transformers.__version__}: 0 of {parity.num_texts} texts have other"
    assert f"- {line}" in (bundle / "MODEL_CARD.md").read_text()
    assert f"original    {line}" in inspected(bundle, capsys)
    main(["verify", str(bundle), "--against", str(source)])
    assert line in capsys.readouterr().out


def test_buckets_of_relative_positions_are_those_of_the_original(transformers):
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = torch.arange(-600, 601)
    expected = MPNetEncoder.relative_position_bucket(distances, num_buckets=32, max_distance=128)
    part = RelativePositions(num_buckets=32, max_distance=128)
    assert torch.equal(buckets(part, distances), expected)


def test_another_checkpoint_than_that_of_the_bundle_fails(transformers, tmp_path, capsys):
    source = write_checkpoint(tmp_path / "source", "bert", has_head=False)
    bundle = import_(source, tmp_path / "bundles")
    other = shutil.copytree(source, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["encoder.layer.0.output.dense.weight"] *= 1.05
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit, match="1"):
        main(["verify", str(bundle), "--against", str(other)])
    assert "hidden states differ from transformers" in capsys.readouterr().err


def test_an_original_that_cannot_load_a_checkpoint_is_no_comparison(
    transformers, tmp_path, capsys, caplog, monkeypatch
):
    def fail(*_, **__):
        raise RuntimeError("no such class")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    source = write_checkpoint(tmp_path / "source", "bert", has_head=False)
    with caplog.at_level(logging.WARNING):
        bundle = import_(source, tmp_path / "bundles")
    assert f"cannot load {source}: no such class" in caplog.text
    assert not read_manifest(bundle).parity.HasField("original")
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(bundle), "--against", str(source)])
    assert f"cannot load {source}: no such class" in capsys.readouterr().err


@pytest.mark.parametrize("auto_class", ["AutoConfig", "AutoModel"])
def test_code_in_a_checkpoint_is_not_run(auto_class, transformers, tmp_path):
    source = write_checkpoint(
        tmp_path / "source", "bert", has_head=False, auto_map={auto_class: "evil.Class"}
    )
    (source / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    if auto_class == "AutoModel":  # it may be another network
        with pytest.raises(SystemExit):
            import_(source, tmp_path / "bundles")
    else:
        bundle = import_(source, tmp_path / "bundles")
        assert read_manifest(bundle).parity.original.min_cosine >= 0.99999
    assert not (tmp_path / "ran").exists()


def test_a_rebuild_keeps_the_comparison_and_marks_it(imported):
    source, bundle = imported
    manifest = read_manifest(bundle)
    manifest.parity.original.implementation = "transformers"
    parameters = read_encoder(source).model.state_dict()
    compare_rebuilt(bundle, manifest, "fp32", parameters)
    assert manifest.parity.original.implementation == "transformers"
    assert manifest.parity.original.is_carried_over
