"""Rules for the manifests of embedding models."""

from pathlib import Path

import pytest
from attendant.v1.embedding_pb2 import SCORE_FUNCTION_SOFTMAX
from attendant_manifest import parse_manifest
from attendant_manifest.rules import problems

BERT = Path(__file__).parents[2] / "tests/recorded/bundles/tiny-bert/1/manifest.json"


@pytest.fixture
def manifest():
    return parse_manifest(BERT.read_text(encoding="utf-8"))


def test_a_prompt_by_default_must_be_one_of_the_prompts(manifest):
    assert not list(problems(manifest))
    manifest.embedding.default_prompt = "query"
    assert list(problems(manifest)) == ["embedding.default_prompt is not among embedding.prompts"]


@pytest.mark.parametrize("numbers", [[0], [8, 4], [8, 8], [33]])
def test_trained_dimensions_ascend_from_1_to_the_dimension_of_vectors(manifest, numbers):
    manifest.embedding.trained_dimensions.extend([1, 8, 32])
    assert not list(problems(manifest))
    manifest.embedding.trained_dimensions[:] = numbers
    assert list(problems(manifest)) == [
        "embedding.trained_dimensions must be ascending numbers from 1 to 32"
    ]


def test_the_default_dimensions_are_trained(manifest):
    manifest.embedding.trained_dimensions.extend([8, 16])
    manifest.embedding.default_dimensions = 16
    assert not list(problems(manifest))
    manifest.embedding.default_dimensions = 4
    assert list(problems(manifest)) == [
        "embedding.default_dimensions is not one of embedding.trained_dimensions"
    ]


def test_poolings_without_the_default_prompt_need_its_number_of_tokens(manifest):
    manifest.architecture.text_vectors.excludes_prompt = True
    assert not list(problems(manifest))
    manifest.embedding.prompts["query"] = "query: "
    manifest.embedding.default_prompt = "query"
    assert list(problems(manifest)) == [
        "embedding.num_prompt_tokens is missing for excludes_prompt and a default prompt"
    ]
    manifest.embedding.num_prompt_tokens = 3
    assert not list(problems(manifest))


def test_static_embeddings_have_no_layers_and_few_special_tokens(manifest):
    del manifest.architecture.encoder.groups[:]
    for name in ("cls_id", "sep_id", "mask_id"):
        manifest.special_tokens.ClearField(name)
    for precision in manifest.precisions:
        precision.ClearField("mlm_head")
        outputs = precision.embedder.outputs
        for output in [each for each in outputs if each.startswith("hidden_") and each[7:] != "0"]:
            outputs.remove(output)
    assert not list(problems(manifest))


def test_poolings_leave_out_a_token_of_the_vocabulary(manifest):
    vectors, source = manifest.architecture.text_vectors, manifest.architecture.source_embeddings
    vectors.excluded_token_id = source.vocab_size - 1
    assert not list(problems(manifest))
    vectors.excluded_token_id = source.vocab_size
    assert list(problems(manifest)) == [
        "architecture.text_vectors.excluded_token_id is outside the vocabulary"
    ]


@pytest.mark.parametrize("output", ["hidden_2", "hidden_3"])
def test_an_output_that_an_embedder_lacks_or_has_in_addition_is_named(manifest, output: str):
    outputs = manifest.precisions[0].embedder.outputs
    if output in outputs:
        outputs.remove(output)
    else:
        outputs.append(output)
    [problem] = problems(manifest)
    assert problem.endswith(f"the embedder's outputs differ from the expected ones: {output}")


def test_labels_need_a_head_with_as_many_scores_and_a_known_function(manifest):
    manifest.architecture.classification_head.num_labels = 2
    need = "classification and architecture.classification_head need each other"
    assert list(problems(manifest)) == [need]
    manifest.classification.labels.extend(["no", "no", "yes"])
    manifest.precisions[0].embedder.outputs.append("label_scores")
    assert list(problems(manifest)) == [
        "classification.labels must have one label for each score of the head",
        "classification.labels has an empty name or a name twice",
        "classification.score_function has no value 0",
    ]
    manifest.classification.labels[:] = ["no", "yes"]
    manifest.classification.score_function = SCORE_FUNCTION_SOFTMAX
    assert not list(problems(manifest))
    manifest.precisions[0].embedder.outputs.remove("label_scores")
    [problem] = problems(manifest)
    assert problem.endswith("differ from the expected ones: label_scores")
