"""Models of late interaction are imported with their vectors of tokens."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from attendant.v1.bundle_pb2 import LateInteraction
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import BundleError, read_manifest
from attendant_export.bundle.verify import verify_bundle
from attendant_export.verify.graph_sessions import ParityError

from tests.support.altered import replace_file
from tests.support.checkpoints import change_json, write_json
from tests.support.colbert_checkpoints import (
    DIMENSION,
    MARKERS,
    PYLATE_MARKERS,
    write_colbert,
    write_pylate,
)
from tests.support.drawn_seeds import seeds
from tests.support.imports import import_, read_encoder
from tests.support.rebuilds import rebuilt_alike

pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_threads")

WRITERS: dict[str, Callable[..., Path]] = {
    "colbert": write_colbert,
    "pylate-bert": write_pylate,
    "pylate-modernbert": partial(write_pylate, family="modernbert"),
}


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("name", WRITERS)
def test_vectors_of_tokens_follow_the_original_in_every_precision(name, seed, tmp_path):
    source = WRITERS[name](tmp_path / "source", seed=seed)
    bundle = import_(source, tmp_path / "bundles", "--precisions", "fp32,fp16,int8")
    manifest = read_manifest(bundle)
    assert manifest.architecture.token_vectors.dense_layers[-1].d_output == DIMENSION
    assert manifest.parity.original.num_different_token_ids == 0
    assert manifest.parity.original.min_cosine >= 0.99999
    for found in (manifest.parity.original.token_vectors, manifest.parity.precisions):
        assert [each.precision for each in found] == ["fp32", "fp16", "int8"]
    cosines = [each.embeddings for each in manifest.parity.original.token_vectors]
    assert cosines[0].min_cosine >= 0.99999
    assert cosines[1].min_cosine >= 0.999
    assert cosines[2].mean_cosine >= 0.99
    assert manifest.parity.precisions[0].token_vectors.min_cosine >= 0.99999


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """A folder of PyLate and its bundle."""
    folder = tmp_path_factory.mktemp("late")
    source = write_pylate(folder / "source")
    return source, import_(source, folder / "bundles")


def test_a_bundle_is_verified_and_described_by_its_vectors_of_tokens(late, capsys):
    source, bundle = late
    main(["verify", str(bundle), "--against", str(source)])
    main(["inspect", str(bundle)])
    lines = capsys.readouterr().out
    assert lines.count("fp32: cosine of vectors of tokens: mean 1.0") == 2
    assert f"d_output {DIMENSION}" in lines
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "its roles are queries, of at most 32 tokens, and documents" in card


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda vector: vector.__setitem__(2, vector[2] + 0.1), "vectors of tokens differ by 0.1;"),
        (lambda vector: vector.pop(), "outputs.fp32.token_vectors[0] must have"),
    ],
)
def test_other_vectors_of_tokens_in_reference_outputs_are_found(change, problem, late, tmp_path):
    bundle = shutil.copytree(late[1], tmp_path / late[1].parent.name / "1")
    name = read_manifest(bundle).reference_outputs
    content = json.loads((bundle / name).read_text())
    change(content["outputs"]["fp32"]["token_vectors"][0])
    replace_file(bundle, name, json.dumps(content).encode())
    with pytest.raises((ParityError, BundleError), match=re.escape(problem)):
        verify_bundle(bundle)


def test_the_graphs_can_be_rebuilt_from_the_weights(late, tmp_path):
    manifest = rebuilt_alike(late[1], tmp_path)
    assert manifest.parity.precisions[0].token_vectors.min_cosine >= 0.99999


@pytest.mark.parametrize(
    ("metadata", "markers", "max_tokens"),
    [
        ({}, MARKERS, 130),  # that of the positions, below the 220 of ColBERT
        ({"doc_maxlen": 70, "dim": DIMENSION, "mask_punctuation": True}, MARKERS, 70),
        ({"query_token_id": "a", "doc_token_id": "b"}, {"query": "a", "document": "b"}, 130),
    ],
)
def test_markers_and_the_limit_are_those_of_the_metadata(metadata, markers, max_tokens, tmp_path):
    encoder = read_encoder(write_colbert(tmp_path / "source", **metadata))
    assert dict(encoder.defaults.prompts) == markers
    assert encoder.max_tokens == max_tokens
    for marker in markers.values():
        first, *rest = encoder.tokenizer.encode("She saw it.").ids
        marker_id = encoder.tokenizer.token_to_id(marker)
        assert encoder.tokenizer.encode(f"{marker} She saw it.").ids == [first, marker_id, *rest]


def test_settings_of_pylate_are_read(tmp_path):
    source = write_pylate(
        *(tmp_path / "source", "bert"),
        document_length=50,
        query_length=17,
        query_prefix="",
        skiplist_words=["nowhere", "!"],
        do_query_expansion=False,
    )
    encoder = read_encoder(source)
    assert dict(encoder.defaults.prompts) == {"document": PYLATE_MARKERS["document"]}
    assert encoder.max_tokens == 50
    vocabulary = encoder.tokenizer.get_vocab()
    assert encoder.late_interaction == LateInteraction(
        max_query_tokens=17,
        skipped_token_ids=sorted(vocabulary[token] for token in ("[UNK]", "!")),
    )
    assert not encoder.model.architecture.token_vectors.has_unattended_tokens


@pytest.mark.parametrize("attends", [False, True])
def test_the_expansion_of_queries_is_read(attends, tmp_path):
    encoders = [
        read_encoder(write_pylate(tmp_path / "pylate", attend_to_expansion_tokens=attends)),
        read_encoder(write_colbert(tmp_path / "colbert", attend_to_mask_tokens=attends)),
    ]
    for encoder in encoders:
        assert encoder.late_interaction is not None
        assert encoder.late_interaction.max_query_tokens == 32
        assert encoder.late_interaction.expands_queries
        assert encoder.model.architecture.token_vectors.has_unattended_tokens != attends


@pytest.mark.parametrize(("masks", "skips"), [(True, True), (False, False), (None, True)])
def test_documents_of_colbert_skip_punctuation_unless_its_metadata_say_otherwise(
    masks, skips, tmp_path
):
    encoder = read_encoder(
        write_colbert(tmp_path / "source", doc_maxlen=90, mask_punctuation=masks)
    )
    point = encoder.tokenizer.token_to_id(".")
    assert encoder.late_interaction is not None
    assert (point in encoder.late_interaction.skipped_token_ids) == skips


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"query_length": 101}, "queries have up to 101 tokens, and documents up to 100"),
        (
            {"query_length": 7},
            "queries are expanded to 7 tokens, and the window of local attention",
        ),
    ],
)
def test_a_model_whose_expansion_is_not_supported_has_markers_only(
    settings, problem, tmp_path, caplog
):
    encoder = read_encoder(write_pylate(tmp_path / "source", "modernbert", **settings))
    assert f"{problem}" in caplog.text
    assert encoder.late_interaction is None
    assert not encoder.model.architecture.token_vectors.has_unattended_tokens
    assert dict(encoder.defaults.prompts) == PYLATE_MARKERS


def test_a_limit_below_that_of_queries_is_refused(tmp_path, refusal):
    source = write_pylate(tmp_path / "source")
    problem = "the limit of 31 tokens is less than the 32 tokens of queries"
    assert problem in refusal(source, "--max-tokens", "31")


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        (
            {"attend_to_mask_tokens": True, "query_maxlen": 131},
            "queries have up to 131 tokens, and documents up to 130, which is not supported",
        ),
        ({"mask_punctuation": 1.5}, "mask_punctuation is 1.5"),
        ({"dim": 128}, f"dim is 128, which is not supported; supported: {DIMENSION}"),
        ({"doc_token_id": "[unused9]"}, "tokenizer.json has no token '[unused9]'"),
        ({"query_token_id": 1}, "query_token_id is 1, want a token"),
    ],
)
def test_metadata_that_are_not_supported_are_named(metadata, problem, tmp_path, refusal):
    assert problem in refusal(write_colbert(tmp_path / "source", **metadata))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"skiplist_words": [3]}, "skiplist_words is [3], want a list of tokens"),
        ({"query_length": 0}, "query_length is 0, want an integer from 1"),
        ({"prompts": {"query": "query: "}}, "prompts of a model of PyLate are not supported"),
        ({"query_prefix": "[A] "}, "tokenizer.json has no token '[A] '"),
        ({"query_prefix": "[SEP]"}, "does not read the marker '[SEP]' before a text as one token"),
    ],
)
def test_settings_of_pylate_that_are_not_supported_are_named(settings, problem, tmp_path, refusal):
    assert problem in refusal(write_pylate(tmp_path / "source", **settings))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("use_residual", True, "use_residual is True, which is not supported"),
        ("module_input_name", "sentence_embedding", "module_input_name is 'sentence_embedding'"),
        ("out_features", 7, "in_features is 20, but the vectors before it have 7 dimensions"),
    ],
)
def test_dense_layers_that_are_not_supported_are_named(field, value, problem, tmp_path, refusal):
    source = write_pylate(tmp_path / "source")
    change_json(source / "1_Dense" / "config.json", **{field: value})
    assert problem in refusal(source)


def test_other_modules_than_dense_layers_of_pylate_are_named(tmp_path, refusal):
    source = write_pylate(tmp_path / "source")
    types = ["sentence_transformers.models.Transformer", "pylate.models.Other"]
    entries = [
        {"type": name, "path": path} for name, path in zip(types, ("", "1_Dense"), strict=True)
    ]
    write_json(source / "modules.json", entries)
    assert f"the modules {', '.join(types)} are not supported" in refusal(source)


def test_a_dense_layer_outside_of_the_folder_is_named(tmp_path, refusal):
    source = write_pylate(tmp_path / "source")
    entries = json.loads((source / "modules.json").read_text(encoding="utf-8"))
    entries[1]["path"] = "../1_Dense"
    write_json(source / "modules.json", entries)
    assert "the path of Dense is '../1_Dense', want a folder's name" in refusal(source)


def test_a_dense_layer_of_pylate_has_no_activation_unless_it_states_one(tmp_path):
    source = write_pylate(tmp_path / "source")
    change_json(source / "1_Dense" / "config.json", activation_function=None)
    first, _ = read_encoder(source).model.architecture.token_vectors.dense_layers
    assert not first.activation


def test_the_projection_of_colbert_can_be_left_out(tmp_path):
    bundle = import_(write_colbert(tmp_path / "source"), tmp_path / "bundles", "--without-head")
    manifest = read_manifest(bundle)
    assert not manifest.architecture.HasField("token_vectors")
    assert not manifest.embedding.prompts
