from dataclasses import replace

import pytest
from attendant_server.application.descriptions import ModelDescription, ModelKind
from attendant_server.application.token_embedding import chosen_layers
from attendant_server.application.tokenization_options import (
    Truncation,
)
from attendant_server.application.translation_options import TranslationOptions, search_options
from attendant_server.application.validation import known_value
from attendant_server.engine.calls import SearchOptions
from attendant_server.errors import InvalidRequest

from tests.support.application import request_limits

LIMITS = request_limits(max_response_bytes=1000)
MODEL = ModelDescription(
    name="en-de",
    version="1",
    kind=ModelKind.TRANSLATION,
    precision="int8",
    max_target_tokens=64,
    suppressed_token_ids=(7, 9),
)


def test_absent_options_take_their_defaults():
    assert search_options(TranslationOptions(), LIMITS, MODEL) == SearchOptions(
        max_output_tokens=64,
        beam_size=1,
        num_hypotheses=1,
        length_penalty=1.0,
        min_output_tokens=0,
        max_output_ratio=3,
        extra_output_tokens=16,
        suppressed_token_ids=(7, 9),
    )


def test_a_limit_of_the_callers_own_holds_for_texts_of_any_length():
    options = search_options(TranslationOptions(max_output_tokens=40), LIMITS, MODEL)
    assert options.for_source(1) == options.for_source(60) == options
    assert options.max_output_tokens == 40


@pytest.mark.parametrize(("num_source_tokens", "limit"), [(1, 19), (5, 31), (16, 64), (60, 64)])
def test_without_one_the_output_is_limited_by_the_length_of_the_text(num_source_tokens, limit):
    options = search_options(TranslationOptions(), LIMITS, MODEL)
    assert options.for_source(num_source_tokens).max_output_tokens == limit


def test_the_least_output_goes_before_the_length_of_the_text():
    options = search_options(TranslationOptions(min_output_tokens=50), LIMITS, MODEL)
    assert options.for_source(2).max_output_tokens == 50


def test_a_zero_that_means_something_is_kept():
    options = TranslationOptions(length_penalty=0.0, min_output_tokens=0)
    assert search_options(options, LIMITS, MODEL).length_penalty == 0.0


@pytest.mark.parametrize(
    ("beam_size", "patience", "problem"),
    [
        (4, 0.9, "must be between 1 and 10"),
        (4, 10.1, "must be between 1 and 10"),
        (4, float("nan"), "must be between 1 and 10"),
        (1, 1.0, "is for beam searches only"),
        (None, 2.0, "is for beam searches only"),
    ],
)
def test_patience_that_no_search_can_have_is_refused(beam_size, patience, problem):
    assert search_options(TranslationOptions(beam_size=2, patience=1.5), LIMITS, MODEL).patience
    with pytest.raises(InvalidRequest, match=rf"^options\.patience: {problem}"):
        search_options(TranslationOptions(beam_size=beam_size, patience=patience), LIMITS, MODEL)


def test_options_of_a_request_go_before_those_of_the_model():
    model = replace(
        MODEL, no_repeat_ngram_size=3, repetition_penalty=1.2, takes_repetition_penalties=True
    )
    found = search_options(TranslationOptions(), LIMITS, model)
    assert (found.no_repeat_ngram_size, found.repetition_penalty) == (3, 1.2)
    options = TranslationOptions(no_repeat_ngram_size=0, repetition_penalty=1.0)
    found = search_options(options, LIMITS, model)
    assert (found.no_repeat_ngram_size, found.repetition_penalty) == (0, 1.0)


@pytest.mark.parametrize("penalty", [0.0, -1.0, 0.009, 100.5, float("nan"), float("inf")])
def test_a_repetition_penalty_outside_of_its_range_is_refused(penalty: float):
    model = replace(MODEL, takes_repetition_penalties=True)
    with pytest.raises(
        InvalidRequest, match=r"^options\.repetition_penalty: must be between 0.01 "
    ):
        search_options(TranslationOptions(repetition_penalty=penalty), LIMITS, model)


def test_a_repetition_penalty_that_the_graphs_cannot_apply_is_refused():
    assert search_options(TranslationOptions(repetition_penalty=1), LIMITS, MODEL)
    with pytest.raises(
        InvalidRequest, match=r"^options\.repetition_penalty: the graphs of en-de/1 "
    ):
        search_options(TranslationOptions(repetition_penalty=1.1), LIMITS, MODEL)


@pytest.mark.parametrize("num_texts", [0, 5, 1_000_000])
def test_counts_are_checked_and_named(num_texts: int):
    with pytest.raises(InvalidRequest, match=f"^pairs: .* got {num_texts}$"):
        LIMITS.check_count("pairs", num_texts)


def test_limits_are_inclusive():
    LIMITS.check_count("texts", 4)
    LIMITS.check_response("texts", 1000)


def test_the_number_zero_stands_for_the_default():
    assert known_value("truncation", 0, Truncation.REFUSE) is Truncation.REFUSE
    assert known_value("truncation", 3, Truncation.REFUSE) is Truncation.LEFT


@pytest.mark.parametrize("number", [-1, 4])
def test_a_number_that_stands_for_nothing_is_refused(number: int):
    with pytest.raises(InvalidRequest, match=f"^truncation: has no value {number}$"):
        known_value("truncation", number, Truncation.REFUSE)


@pytest.mark.parametrize(("seconds_left", "deadline"), [(None, 160.0), (90.0, 160.0), (5.0, 105.0)])
def test_a_call_has_until_the_earlier_of_its_own_deadline_and_the_servers_limit(
    seconds_left: float | None, deadline: float
):
    assert LIMITS.deadline(100.0, seconds_left) == deadline


@pytest.mark.parametrize("penalty", [float("nan"), float("inf"), -0.1, 10.5])
def test_a_length_penalty_outside_of_its_range_is_refused(penalty: float):
    with pytest.raises(InvalidRequest, match=r"^options\.length_penalty: must be between 0 and 10"):
        search_options(TranslationOptions(length_penalty=penalty), LIMITS, MODEL)


@pytest.mark.parametrize(
    ("requested", "chosen"),
    [([], [6]), ([-1], [6]), ([0], [0]), ([-7, 6], [0, 6]), ([3, 1], [3, 1])],
)
def test_layers_count_from_both_ends(requested: list[int], chosen: list[int]):
    assert chosen_layers(requested, num_layers=6) == chosen


@pytest.mark.parametrize("requested", [[7], [-8], [6, -1], [0] * 8])
def test_layers_that_do_not_exist_or_come_twice_are_refused(requested: list[int]):
    with pytest.raises(InvalidRequest, match="^layers: "):
        chosen_layers(requested, num_layers=6)
