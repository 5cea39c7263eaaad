import pytest
from attendant.v1.embedding_pb2 import POOLING_CLS, POOLING_MEAN, POOLING_UNSPECIFIED
from attendant.v1.text_pb2 import TRUNCATION_LEFT, TRUNCATION_REFUSE, TRUNCATION_UNSPECIFIED
from attendant.v1.translation_pb2 import TranslateOptions
from attendant_server.application import validation
from attendant_server.application.validation import TEXTS, RequestLimits
from attendant_server.engine.calls import SearchOptions
from attendant_server.errors import InvalidRequest

LIMITS = RequestLimits(
    max_texts=4,
    max_text_characters=10,
    max_beam_size=8,
    max_top_k=100,
    max_response_bytes=1000,
    max_request_seconds=60.0,
)


def test_absent_options_take_their_defaults():
    assert validation.search_options(TranslateOptions(), LIMITS, 64) == SearchOptions(
        max_output_tokens=64,
        beam_size=1,
        num_hypotheses=1,
        length_penalty=1.0,
        min_output_tokens=0,
        max_output_ratio=3,
    )


def test_a_limit_of_the_callers_own_holds_for_texts_of_any_length():
    options = validation.search_options(TranslateOptions(max_output_tokens=40), LIMITS, 64)
    assert options.for_source(1) == options.for_source(60) == options
    assert options.max_output_tokens == 40


@pytest.mark.parametrize(("num_source_tokens", "limit"), [(1, 19), (5, 31), (16, 64), (60, 64)])
def test_without_one_the_output_is_limited_by_the_length_of_the_text(num_source_tokens, limit):
    options = validation.search_options(TranslateOptions(), LIMITS, 64)
    assert options.for_source(num_source_tokens).max_output_tokens == limit


def test_the_least_output_goes_before_the_length_of_the_text():
    options = validation.search_options(TranslateOptions(min_output_tokens=50), LIMITS, 64)
    assert options.for_source(2).max_output_tokens == 50


def test_a_zero_that_means_something_is_kept():
    options = TranslateOptions(length_penalty=0.0, min_output_tokens=0)
    assert validation.search_options(options, LIMITS, 64).length_penalty == 0.0


@pytest.mark.parametrize("num_texts", [0, 5, 1_000_000])
def test_counts_are_checked_and_named(num_texts: int):
    with pytest.raises(InvalidRequest, match=f"^pairs: .* got {num_texts}$"):
        LIMITS.check_count("pairs", num_texts)


def test_limits_are_inclusive():
    LIMITS.check_count("texts", 4)
    LIMITS.check_characters("text", ["x" * 10])
    LIMITS.check_response("texts", 1000)


def test_characters_are_code_points():
    LIMITS.check_characters("text", ["🐶" * 10])
    with pytest.raises(InvalidRequest, match=r"^texts\[1\]: at most 10 characters, got 11$"):
        LIMITS.check_characters(TEXTS, ["a", "🐶" * 11])


def test_a_message_never_repeats_the_text():
    with pytest.raises(InvalidRequest) as failure:
        LIMITS.check_characters("text", ["secret words"])
    assert "secret" not in str(failure.value)


def test_unspecified_means_the_default():
    assert validation.truncation(TRUNCATION_UNSPECIFIED) == TRUNCATION_REFUSE
    assert validation.truncation(TRUNCATION_LEFT) == TRUNCATION_LEFT
    assert validation.pooling(POOLING_UNSPECIFIED, POOLING_CLS) == POOLING_CLS
    assert validation.pooling(POOLING_MEAN, POOLING_CLS) == POOLING_MEAN


@pytest.mark.parametrize(
    ("requested", "chosen"),
    [([], [6]), ([-1], [6]), ([0], [0]), ([-7, 6], [0, 6]), ([3, 1], [3, 1])],
)
def test_layers_count_from_both_ends(requested: list[int], chosen: list[int]):
    assert validation.layers(requested, num_layers=6) == chosen


@pytest.mark.parametrize("requested", [[7], [-8], [6, -1], [0] * 8])
def test_layers_that_do_not_exist_or_come_twice_are_refused(requested: list[int]):
    with pytest.raises(InvalidRequest, match="^layers: "):
        validation.layers(requested, num_layers=6)
