"""Manifests of models of late interaction are checked."""

from pathlib import Path

from attendant_manifest import parse_manifest
from attendant_manifest.rules import problems

BERT = Path(__file__).parents[2] / "tests/recorded/bundles/tiny-bert/1/manifest.json"


def test_vectors_of_tokens_need_layers_and_their_output():
    manifest = parse_manifest(BERT.read_text(encoding="utf-8"))
    part = manifest.architecture.token_vectors
    part.SetInParent()
    assert "architecture.token_vectors.dense_layers must have one or more" in problems(manifest)
    part.dense_layers.add(d_output=0)
    assert list(problems(manifest)) == [
        "architecture.token_vectors: d_output must be between 1 and 1048576",
        "the fp32 precision: the embedder's outputs differ from the expected ones: token_vectors",
    ]
    part.dense_layers[0].d_output = 12
    manifest.precisions[0].embedder.outputs.append("token_vectors")
    assert not list(problems(manifest))


def test_tokens_without_attention_need_an_input_of_the_embedder():
    manifest = late_manifest()
    assert not list(problems(manifest))
    manifest.architecture.token_vectors.has_unattended_tokens = True
    problem = "the fp32 precision: the input attended_lengths of the embedder and "
    assert list(problems(manifest)) == [
        problem + "architecture.token_vectors.has_unattended_tokens need each other"
    ]
    manifest.precisions[0].embedder.inputs.append("attended_lengths")
    assert not list(problems(manifest))


def test_queries_need_a_limit_and_a_token_that_expands_them():
    manifest = late_manifest()
    manifest.late_interaction.max_query_tokens = manifest.limits.max_tokens + 1
    manifest.late_interaction.skipped_token_ids.append(
        manifest.architecture.source_embeddings.vocab_size
    )
    manifest.special_tokens.ClearField("mask_id")
    del manifest.precisions[0].mlm_head.inputs[:]
    manifest.precisions[0].ClearField("mlm_head")
    assert list(problems(manifest)) == [
        "late_interaction.max_query_tokens must be between 1 and limits.max_tokens",
        "special_tokens.mask_id is missing, but late_interaction.expands_queries is set",
        "late_interaction.skipped_token_ids has an id outside the vocabulary",
    ]
    manifest = late_manifest()
    manifest.architecture.ClearField("token_vectors")
    manifest.precisions[0].embedder.outputs.remove("token_vectors")
    problem = "late_interaction is set without architecture.token_vectors"
    assert list(problems(manifest)) == [problem]


def late_manifest():
    manifest = parse_manifest(BERT.read_text(encoding="utf-8"))
    manifest.architecture.token_vectors.dense_layers.add(d_output=12)
    manifest.precisions[0].embedder.outputs.append("token_vectors")
    manifest.late_interaction.max_query_tokens = 8
    manifest.late_interaction.expands_queries = True
    return manifest
