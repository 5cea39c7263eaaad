"""Every family of checkpoints becomes a bundle through the real command."""

import json

import pytest
from attendant.v1.architecture_pb2 import ACTIVATION_GELU, ACTIVATION_GELU_TANH
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_manifest.sizes import num_layers
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import (
    FAMILIES,
    NUM_LAYERS,
    NUM_POSITIONS,
    WIDTH,
    change_json,
    write_checkpoint,
)

pytestmark = pytest.mark.usefixtures("quiet_threads")

PREFIXES = {each: f"{each}." for each in ("albert", "bert", "distilbert", "electra", "mpnet")} | {
    "modernbert": "model."
}


def import_(source, tmp_path, *options):
    """The folder and the manifest of the imported bundle."""
    main(["import", str(source), "--bundles-dir", str(tmp_path / "bundles"), *options])
    (folder,) = (tmp_path / "bundles").glob("*/*")
    return folder, read_manifest(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_with_a_head_becomes_a_bundle_that_verifies(family, tmp_path, capsys):
    prefix = PREFIXES.get(family, "roberta.")
    source = write_checkpoint(tmp_path / f"Tiny {family}_v1", family, prefix=prefix)

    folder, manifest = import_(source, tmp_path, "--precisions", "fp32,int8")

    assert manifest.name == f"tiny-{family}-v1"
    assert (manifest.license, list(manifest.languages)) == ("cc0-1.0", ["en", "de"])
    assert manifest.provenance.imported_from.family == family
    files = {file.path: file.size_bytes for file in manifest.provenance.imported_from.files}
    assert files["model.safetensors"] == (source / "model.safetensors").stat().st_size
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "README.md"} < files.keys()
    assert [precision.HasField("mlm_head") for precision in manifest.precisions] == [True, True]
    main(["verify", str(folder)])
    assert "log-probabilities of candidates for" in capsys.readouterr().out


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_without_a_head_becomes_a_bundle_without_a_head(family, tmp_path):
    source = write_checkpoint(tmp_path / "source", family, has_head=False)
    _, manifest = import_(source, tmp_path)
    assert not manifest.architecture.HasField("head")
    assert not manifest.precisions[0].HasField("mlm_head")


@pytest.mark.parametrize(
    ("family", "offset", "num_token_types"),
    [
        ("albert", 0, 2),
        ("bert", 0, 2),
        ("distilbert", 0, 0),
        ("electra", 0, 2),
        ("modernbert", 0, 0),
        ("mpnet", 2, 0),
        ("roberta", 2, 1),
        ("xlm-roberta", 2, 1),
        ("camembert", 2, 1),
    ],
)
def test_the_network_has_the_sizes_of_the_configuration(family, offset, num_token_types, tmp_path):
    source = write_checkpoint(tmp_path / "source", family)
    _, manifest = import_(source, tmp_path)

    network = manifest.architecture
    assert network.d_model == WIDTH
    assert num_layers(network.encoder) == NUM_LAYERS
    assert network.source_embeddings.positions.offset == offset
    assert network.source_embeddings.num_token_types == num_token_types
    assert manifest.limits.max_tokens == NUM_POSITIONS - offset
    # The head of RoBERTa has GELU, whatever the layers have; that of BERT has theirs.
    is_tanh = family in ("albert", "bert")
    assert network.head.transform == (ACTIVATION_GELU_TANH if is_tanh else ACTIVATION_GELU)


def test_sharded_weights_are_read_through_their_index(tmp_path):
    source = write_checkpoint(tmp_path / "source", "bert")
    whole = source / "model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    weight_map = {}
    for i, name in enumerate(sorted(tensors)):
        weight_map[name] = f"model-{i % 2 + 1:05}-of-00002.safetensors"
    for file in set(weight_map.values()):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, source / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))

    _, manifest = import_(source, tmp_path)

    files = {file.path for file in manifest.provenance.imported_from.files}
    assert {"model.safetensors.index.json", *weight_map.values()} <= files


def test_weights_of_half_precision_and_of_pickles_are_read(tmp_path):
    import torch

    source = write_checkpoint(tmp_path / "source", "bert", prefix="bert.")
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    torch.save(
        {name: tensor.half() for name, tensor in tensors.items()}, source / "pytorch_model.bin"
    )
    _, manifest = import_(source, tmp_path)
    files = {file.path for file in manifest.provenance.imported_from.files}
    assert "pytorch_model.bin" in files


def test_weights_that_the_network_does_not_need_are_ignored(tmp_path):
    source = write_checkpoint(tmp_path / "source", "bert", prefix="bert.")
    path = source / "model.safetensors"
    tensors = load_file(path)
    embedding = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.weight"] = embedding.clone()
    tensors["cls.seq_relationship.weight"] = embedding[:2].clone()
    save_file(tensors, path)
    import_(source, tmp_path)


def test_options_override_what_the_checkpoint_states(tmp_path):
    source = write_checkpoint(tmp_path / "source", "distilbert")
    options = "--name mine --model-version 2.1 --license MIT --languages fr,it --max-tokens 40"
    folder, manifest = import_(source, tmp_path, *options.split())
    assert folder == tmp_path / "bundles" / "mine" / "2.1"
    assert (manifest.license, list(manifest.languages)) == ("MIT", ["fr", "it"])
    assert manifest.limits.max_tokens == 40


def test_a_shorter_limit_of_the_tokenizer_is_the_limit_of_texts(tmp_path):
    source = write_checkpoint(tmp_path / "source", "bert")
    change_json(source / "tokenizer_config.json", model_max_length=50)
    _, manifest = import_(source, tmp_path)
    assert manifest.limits.max_tokens == 50


def test_no_limit_of_the_tokenizer_leaves_that_of_the_positions(tmp_path):
    source = write_checkpoint(tmp_path / "source", "bert")
    change_json(source / "tokenizer_config.json", model_max_length=10**30)
    _, manifest = import_(source, tmp_path)
    assert manifest.limits.max_tokens == NUM_POSITIONS


@pytest.mark.parametrize(
    ("card", "license_", "languages"),
    [
        ("---\nlicense: apache-2.0\nlanguage: de\n---\n", "apache-2.0", ["de"]),
        ("---\nlicense: other\nlicense_name: my-licence\n---\n", "my-licence", []),
        ("---\nlicense: mit\nlanguage:\n- en\n- [5]\n---\n# Text", "mit", ["en"]),
        ("---\nlicense:\n- mit\nlanguage:\n- no\n- en\n---\n", "mit", ["no", "en"]),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit, cc-by-4.0", []),
        ("\ufeff\n--- \nlicense: mit\n--- \n", "mit", []),
    ],
)
def test_licence_and_languages_come_from_the_head_of_the_card(card, license_, languages, tmp_path):
    source = write_checkpoint(tmp_path / "source", "bert", has_head=False)
    (source / "README.md").write_text(card)
    _, manifest = import_(source, tmp_path)
    assert (manifest.license, list(manifest.languages)) == (license_, languages)


def test_inspect_and_the_model_card_say_where_a_model_comes_from(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "source", "bert", has_head=False)
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    folder, manifest = import_(source, tmp_path)
    capsys.readouterr()

    main(["inspect", str(folder)])

    lines = capsys.readouterr().out.splitlines()
    assert "languages   not stated" in lines
    created = manifest.provenance.created
    assert f"imported    from source, family bert, {created}" in lines
    assert not any(line.startswith("trained") for line in lines)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "Reads languages that its source does not state, texts of at most 130 tokens." in card
    assert "- config.json, SHA-256 " in card
