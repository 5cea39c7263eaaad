"""Folders of ``MultiVectorEncoder`` of sentence-transformers are imported as late interaction."""

import json

import pytest
from attendant.v1.bundle_pb2 import LateInteraction
from attendant_export.bundle.manifest import read_manifest

from tests.support.checkpoints import change_json, write_json
from tests.support.colbert_checkpoints import DIMENSION, PYLATE_MARKERS
from tests.support.drawn_seeds import seeds
from tests.support.imports import import_, read_encoder
from tests.support.multi_vector_folders import EXPANSION, write_multi_vector

pytestmark = pytest.mark.usefixtures("quiet_threads")


@pytest.mark.parametrize("seed", seeds(num_always=1))
def test_vectors_of_tokens_follow_the_original(seed, tmp_path):
    pytest.importorskip("transformers")
    family = ("bert", "modernbert", "mpnet")[seed % 3]
    bundle = import_(write_multi_vector(tmp_path / "source", family, seed), tmp_path / "bundles")
    manifest = read_manifest(bundle)
    assert manifest.architecture.token_vectors.dense_layers[-1].d_output == DIMENSION
    assert manifest.parity.original.num_different_token_ids == 0
    (vectors,) = manifest.parity.original.token_vectors
    assert vectors.embeddings.min_cosine >= 0.99999


def test_settings_of_the_modules_are_read(tmp_path):
    encoder = read_encoder(write_multi_vector(tmp_path / "source", default_prompt_name="query"))
    vocabulary = encoder.tokenizer.get_vocab()
    assert encoder.late_interaction == LateInteraction(
        max_query_tokens=32,
        expands_queries=True,
        skipped_token_ids=sorted(vocabulary[token] for token in ".,"),
    )
    assert encoder.max_tokens == 100
    assert dict(encoder.defaults.prompts) == PYLATE_MARKERS
    assert encoder.defaults.default_prompt == "query"
    assert encoder.model.architecture.token_vectors.has_unattended_tokens


def test_markers_that_are_special_tokens_are_read_in_texts(tmp_path):
    tokenizer = read_encoder(write_multi_vector(tmp_path / "source")).tokenizer
    tokenizer.encode_special_tokens = True
    first, *rest = tokenizer.encode("She saw it.").ids
    for marker in PYLATE_MARKERS.values():
        marker_id = tokenizer.token_to_id(marker)
        assert tokenizer.encode(f"{marker}She saw it.").ids == [first, marker_id, *rest]


def test_markers_may_be_texts_and_a_prompt_of_passages_is_that_of_documents(tmp_path):
    prompts = {"query": "search: ", "passage": "text: "}
    source = write_multi_vector(tmp_path / "source", prompts=prompts)
    found = dict(read_encoder(source).defaults.prompts)
    assert found == {**prompts, "document": "text: "}


@pytest.mark.parametrize(
    ("encoder", "max_tokens", "max_query_tokens", "warning"),
    [
        ({"query_expansion": None, "query_length": 20}, 100, 20, ""),
        ({"query_expansion": None, "document_length": None}, 130, 130, ""),
        ({"query_expansion": None}, 100, 100, "queries have at most 100 tokens, as documents do"),
        ({"query_expansion": EXPANSION | {"strategy": "min"}, "query_length": 32}, 100, 32, ""),
        ({"document_length": 500, "max_seq_length": 90}, 130, 32, ""),
        ({"document_length": None, "max_seq_length": 90}, 90, 32, ""),
    ],
)
def test_limits_are_those_of_the_encoder(
    encoder, max_tokens, max_query_tokens, warning, tmp_path, caplog
):
    source = write_multi_vector(tmp_path / "source", encoder=encoder)
    change_json(source / "tokenizer_config.json", model_max_length=130)
    found = read_encoder(source)
    assert found.max_tokens == max_tokens
    assert found.late_interaction is not None
    assert found.late_interaction.max_query_tokens == max_query_tokens
    assert (warning in caplog.text) if warning else not caplog.records


def test_tokens_are_kept_in_documents_without_a_list_or_a_task(tmp_path):
    for name in ("skiplist_words", "skiplist_tasks"):
        found = read_encoder(write_multi_vector(tmp_path / name, mask={name: []}))
        assert found.late_interaction is not None
        assert not found.late_interaction.skipped_token_ids


@pytest.mark.parametrize(
    ("part", "fields", "problem"),
    [
        ("mask", {"skiplist_words": "."}, "skiplist_words is '.', want a list of tokens"),
        ("mask", {"skiplist_tasks": ["query"]}, "skiplist_tasks is ['query'], which is not"),
        ("mask", {"keep_only_token_ids": [7]}, "keep_only_token_ids is [7], which is not"),
        ("encoder", {"query_expansion": 32}, "query_expansion is 32, want an object"),
        (
            "encoder",
            {"query_expansion": EXPANSION | {"strategy": "min"}},
            "query_expansion.strategy is 'min', which is not supported; supported: 'fixed'",
        ),
        (
            "encoder",
            {"query_expansion": EXPANSION | {"token": "[SEP]"}},
            "query_expansion.token is '[SEP]', which is not supported; supported: '[MASK]'",
        ),
        (
            "encoder",
            {"query_expansion": EXPANSION | {"length": 0}},
            "query_expansion.length is 0, want an integer from 1",
        ),
        ("encoder", {"do_lower_case": True}, "do_lower_case is True, which is not supported"),
    ],
)
def test_settings_that_are_not_supported_are_named(part, fields, problem, tmp_path, refusal):
    assert problem in refusal(write_multi_vector(tmp_path / "source", **{part: fields}))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"query_prefix": "[Q] "}, "query_prefix is '[Q] ', which is not supported"),
        ({"prompts": {"query": "[SEP] "}}, "the prompt query is '[SEP] ': its special token"),
    ],
)
def test_settings_of_the_package_that_are_not_supported_are_named(
    settings, problem, tmp_path, refusal
):
    assert problem in refusal(write_multi_vector(tmp_path / "source", **settings))


@pytest.mark.parametrize("kept", [(0, 1, 2, 3), (0, 1, 2, 4), (0, 3, 4), (0, 1, 4, 2, 3), ()])
def test_other_lists_of_modules_are_named(kept, tmp_path, refusal):
    source = write_multi_vector(tmp_path / "source")
    entries = json.loads((source / "modules.json").read_text(encoding="utf-8"))
    write_json(source / "modules.json", [entries[each] for each in kept])
    assert "supported of MultiVectorEncoder: Transformer, one or more Dense" in refusal(source)


def test_a_normalization_of_texts_is_named(tmp_path, refusal):
    source = write_multi_vector(tmp_path / "source")
    write_json(source / "4_Normalize" / "config.json", {})
    assert "module_input_name is 'sentence_embedding', which is not supported" in refusal(source)
