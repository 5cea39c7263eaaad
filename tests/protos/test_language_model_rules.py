"""The rules of manifests for language models, each broken in turn."""

import json

import pytest
from attendant_manifest import format_manifest, parse_manifest
from attendant_manifest.rules import problems

from tests.support.language_models import gpt2_like, write_random_language_model
from tests.support.manifests import translation_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """The content of the manifest of a model with learned positions."""
    folder = tmp_path_factory.mktemp("bundles")
    bundle = write_random_language_model(folder, architecture=gpt2_like())
    return json.loads((bundle / "manifest.json").read_text())


def problems_of(content) -> list[str]:
    return list(problems(parse_manifest(json.dumps(content))))


def changed(manifest, path, value):
    """A copy with the value at a path; None removes it."""
    content = json.loads(json.dumps(manifest))
    *parents, last = path.split("/")
    part = content
    for name in parents:
        part = part[int(name)] if name.isdecimal() else part.setdefault(name, {})
    if value is None:
        del part[last]
    else:
        part[last] = value
    return content


STEP = "precisions/0/steps/0"
TRANSLATION = translation_manifest()
RULES = {
    "target_tokenizer": ("tokenizer.json", "target_tokenizer is for translation models"),
    "source_languages": ([{"tag": "en"}], "source_languages is for translation models"),
    "glossaries": (["terms"], "glossaries is for translation models"),
    "alignment": ({"heads": [{}]}, "alignment is for translation models"),
    "architecture/encoder": ({"norm_epsilon": 1e-5}, "architecture.encoder is not for a language"),
    "architecture/source_embeddings": ({"vocab_size": 3}, "architecture.source_embeddings is not"),
    "architecture/head": (None, "architecture.head is missing"),
    "architecture/decoder": (None, "architecture.decoder is missing"),
    "architecture/decoder/groups/0/cross_attention": (
        {"num_heads": 1},
        "architecture.decoder must have layers with self-attention alone",
    ),
    "special_tokens/eos_id": (None, "special_tokens.eos_id is missing"),
    "special_tokens/pad_id": (300, "special_tokens.pad_id is outside the vocabulary"),
    "decoding/start_token_id": (300, "a token id in decoding is outside the vocabulary"),
    "decoding/forced_token_ids": ([5], "decoding.forced_token_ids is for translation models"),
    "decoding/length_penalty": (-1, "decoding.length_penalty must be between 0 and 10"),
    "decoding/repetition_penalty": (0.001, "decoding.repetition_penalty must be between 0.01"),
    "limits": (None, "limits.max_tokens must be between 1 and 64"),
    "limits/max_tokens": (65, "limits.max_tokens must be between 1 and 64"),
    "precisions/0/encoder": (None, "the fp32 precision has no graph encoder"),
    "precisions/0/scorer": (None, "the fp32 precision has no graph scorer"),
    "precisions/0/aligner": ({"path": "x"}, "aligner is for translation models"),
    f"{STEP}/inputs/source_lengths": ("lengths", "source_lengths is for steps that read sources"),
    f"{STEP}/states/0/encoder_output": (
        "nothing",
        "encoder_output is not an output of the encoder",
    ),
    f"{STEP}/states/0/owner": ("STATE_OWNER_SOURCE", "owner must be STATE_OWNER_ROW"),
    f"{STEP}/states/0/update": ("STATE_UPDATE_REPLACED", "only STATE_UPDATE_GROWS is supported"),
}


def test_the_manifest_of_a_language_model_is_valid(manifest):
    assert problems_of(manifest) == []
    parsed = parse_manifest(json.dumps(manifest))
    assert parse_manifest(format_manifest(parsed)) == parsed


@pytest.mark.parametrize("path", RULES)
def test_a_broken_rule_is_named(path, manifest):
    value, message = RULES[path]
    assert any(message in problem for problem in problems_of(changed(manifest, path, value)))


def test_a_model_with_a_penalty_needs_a_step_that_applies_it(manifest):
    content = changed(manifest, "decoding/repetition_penalty", 1.5)
    assert problems_of(content) == []
    content = changed(content, f"{STEP}/inputs/repetition_penalty", None)
    content = changed(content, f"{STEP}/outputs/candidate_scores", None)
    message = "the fp32 precision: a step has no inputs for repetition penalties"
    assert message in problems_of(content)


def test_a_state_of_a_row_needs_an_output_of_the_prefill(manifest):
    content = changed(manifest, f"{STEP}/states/0/encoder_output", None)
    assert any(
        "state past_key_0: encoder_output is missing" in each for each in problems_of(content)
    )


def test_steps_of_a_translation_model_begin_with_empty_rows():
    content = json.loads(json.dumps(TRANSLATION))
    state = content["precisions"][0]["steps"][0]["states"][0]
    state["encoder_output"] = "cross_key_0"
    assert any("is not supported for a growing state" in each for each in problems_of(content))
