"""The rules of manifests for languages, decoding, limits and bounds, each broken in turn."""

import pytest

from tests.protos.test_manifest_rules import Change, drop, problem_of, set_key, set_part

RULES: dict[str, tuple[Change, str]] = {
    "no source language": (set_key("source_languages", []), "source_languages must have"),
    "a language twice": (
        set_key("source_languages", [{"tag": "en"}, {"tag": "EN"}]),
        "source_languages has a language twice",
    ),
    "a token of a source language outside the vocabulary": (
        set_key("source_languages", [{"tag": "en", "source_suffix_ids": [100]}]),
        "source_languages: a token id of en is outside the source vocabulary",
    ),
    "a token of a target language outside the vocabulary": (
        set_key("target_languages", [{"tag": "de", "forced_target_ids": [5, 100]}]),
        "target_languages: a token id of de is outside the target vocabulary",
    ),
    "a language that forces EOS": (
        set_key("target_languages", [{"tag": "de", "forced_target_ids": [2]}]),
        "target_languages: de forces EOS or a suppressed token",
    ),
    "a forced token that is suppressed": (
        set_part("decoding", forced_token_ids=[5], suppressed_token_ids=[5]),
        "decoding.forced_token_ids has EOS or a suppressed token",
    ),
    "a language without a tag": (set_key("target_languages", [{}]), "target_languages must have"),
    "no start token": (drop("decoding"), "decoding.start_token_id is missing"),
    "a start outside the vocabulary": (
        set_part("decoding", start_token_id=100),
        "a token id in decoding is outside the vocabulary",
    ),
    "a suppressed token outside the vocabulary": (
        set_part("decoding", suppressed_token_ids=[5, 100]),
        "a token id in decoding is outside the vocabulary",
    ),
    "a forced token outside the vocabulary": (
        set_part("decoding", forced_token_ids=[100]),
        "a token id in decoding is outside the vocabulary",
    ),
    "a small repetition penalty": (
        set_part("decoding", repetition_penalty=0.001),
        "decoding.repetition_penalty must be between 0.01 and 100",
    ),
    "a repetition penalty that is no number": (
        set_part("decoding", repetition_penalty="NaN"),
        "decoding.repetition_penalty must be between 0.01 and 100",
    ),
    "a repetition penalty without inputs": (
        set_part("decoding", repetition_penalty=1.2),
        "the int8 precision: a step has no inputs for repetition penalties",
    ),
    "a repetition penalty with shortlists": (
        lambda m: (
            m["decoding"].update(repetition_penalty=1.2),
            m["precisions"][0].update(shortlist_output="shortlist"),
        ),
        "the int8 precision: shortlists have no repetition penalty",
    ),
    "more tokens than learned positions": (
        set_part(
            "architecture",
            "target_embeddings",
            positions={"kind": "POSITION_KIND_LEARNED", "num_positions": 34, "offset": 2},
        ),
        "limits.max_target_tokens must be between 1 and 32",
    ),
    "a bound that is not a rounding error": (
        set_key("parity", {"precisions": [{"precision": "int8", "log_probability_bound": 0.6}]}),
        "log_probability_bound of int8 must be between 0 and 0.5",
    ),
    "an infinite bound": (
        set_key(
            "parity", {"precisions": [{"precision": "fp32", "log_probability_bound": "Infinity"}]}
        ),
        "log_probability_bound of fp32 must be between 0 and 0.0001",
    ),
    "a bound that is no number": (
        set_key("parity", {"precisions": [{"precision": "fp16", "log_probability_bound": "NaN"}]}),
        "log_probability_bound of fp16 must be between 0 and 0.1",
    ),
    "a report on an unknown precision": (
        set_key("parity", {"precisions": [{"precision": "int4"}]}),
        "parity.precisions has an unknown precision 'int4'",
    ),
}


@pytest.mark.parametrize(("change", "problem"), RULES.values(), ids=RULES.keys())
def test_a_manifest_that_breaks_a_rule_of_decoding_is_found(change: Change, problem: str):
    assert problem in problem_of(change)
