"""Vectors of words and of spans are the means of those of their tokens."""

from typing import Any

import grpc
import numpy as np
import pytest
from attendant.v1.embedding_pb2 import (
    DATA_TYPE_INT8,
    LAYER_COMBINATION_CONCATENATION,
    LAYER_COMBINATION_MEAN,
    VECTOR_UNIT_SPANS,
    VECTOR_UNIT_TOKENS,
    VECTOR_UNIT_WORDS,
    EmbedTokensRequest,
    EmbedTokensResult,
    Span,
    TextSpans,
)
from attendant.v1.text_pb2 import TRUNCATION_LEFT, TRUNCATION_RIGHT
from attendant_client import Client, TextError

from tests.support.serving import Running, failure_of

TEXT = "Der Lehrer🐶 grüßt  die\u0301 Königinnen, aufgehen."
WORDS = [
    "Der",
    "Lehrer",
    "🐶",
    "grüßt",
    "die\u0301",
    "Königinnen",
    ",",
    "aufgehen",
    ".",
]
ANY_SPANS = [(20, 30), (0, 3), (0, len(TEXT)), (5, 6), (4, 21), (0, 3)]


def spans_of(*of_texts: Any) -> list[TextSpans]:
    return [TextSpans(spans=[Span(start=s, end=e) for s, e in spans]) for spans in of_texts]


def embed(server: Running, texts: list[str], **fields: Any) -> list[EmbedTokensResult]:
    return list(server.embedding.EmbedTokens(EmbedTokensRequest(texts=texts, **fields)).results)


def array(result: EmbedTokensResult) -> Any:
    return np.frombuffer(result.embeddings.data, "<f4").reshape(result.embeddings.shape)


def expected(result: EmbedTokensResult, spans: Any) -> Any:
    """The means, computed from the vectors of tokens."""
    vectors = array(result)
    means = [
        vectors[..., [i for i, t in enumerate(result.tokens) if overlaps(t, span)], :].mean(-2)
        for span in spans
    ]
    return np.stack(means, axis=-2)


def overlaps(token: Any, span: tuple[int, int]) -> bool:
    return not token.special and token.start < span[1] and span[0] < token.end


def places(result: EmbedTokensResult) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in result.spans]


def test_words_have_the_mean_of_their_tokens(running: Running):
    (tokens,) = embed(running, [TEXT])
    (words,) = embed(running, [TEXT], unit=VECTOR_UNIT_WORDS)
    assert [TEXT[start:end] for start, end in places(words)] == WORDS
    assert not words.tokens
    assert max(span.num_tokens for span in words.spans) > 1
    assert array(words) == pytest.approx(expected(tokens, places(words)), abs=1e-5)


def test_spans_may_come_in_any_order_and_overlap(running: Running):
    (tokens,) = embed(running, [TEXT], unit=VECTOR_UNIT_TOKENS)
    spans = spans_of(ANY_SPANS, [])
    found, none = embed(running, [TEXT, TEXT], unit=VECTOR_UNIT_SPANS, spans=spans)
    assert places(found) == ANY_SPANS
    assert array(found) == pytest.approx(expected(tokens, ANY_SPANS), abs=1e-5)
    assert array(none).shape == (0, array(found).shape[1])


@pytest.mark.parametrize("combination", [LAYER_COMBINATION_MEAN, LAYER_COMBINATION_CONCATENATION])
def test_layers_are_combined_for_spans_as_for_tokens(running: Running, combination: Any):
    spans = {"unit": VECTOR_UNIT_SPANS, "spans": spans_of(ANY_SPANS)}
    (tokens,) = embed(running, [TEXT], layers=[0, 2])
    (layers,) = embed(running, [TEXT], layers=[0, 2], **spans)
    assert array(layers) == pytest.approx(expected(tokens, ANY_SPANS), abs=1e-5)
    (combined,) = embed(running, [TEXT], layers=[0, 2], layer_combination=combination, **spans)
    is_mean = combination == LAYER_COMBINATION_MEAN
    both = array(layers).mean(0) if is_mean else np.concatenate(array(layers), axis=-1)
    assert array(combined) == pytest.approx(both, abs=1e-5)


def test_vectors_of_words_have_number_formats(running: Running):
    (words,) = embed(running, [TEXT], unit=VECTOR_UNIT_WORDS, data_type=DATA_TYPE_INT8)
    assert len(words.embeddings.scales) == len(words.spans) == len(WORDS)


def test_words_that_truncation_cuts_are_left_out(running: Running):
    text = "Königinnen " * 40
    (whole,) = embed(running, ["Königinnen"], unit=VECTOR_UNIT_WORDS)
    num_tokens = whole.spans[0].num_tokens
    assert num_tokens > 1
    for truncation in (TRUNCATION_RIGHT, TRUNCATION_LEFT):
        (words,) = embed(running, [text], unit=VECTOR_UNIT_WORDS, truncation=truncation)
        assert {span.num_tokens for span in words.spans} == {num_tokens}
        assert len(words.spans) == (words.truncation.num_kept_tokens - 2) // num_tokens
        edge = -1 if truncation == TRUNCATION_LEFT else 0
        assert places(words)[edge] == [(0, 10), (429, 439)][edge]


def test_a_bad_span_fails_its_text_alone(running: Running):
    long = "dog " * 200
    bad = {
        "must have start < end <= 7, got 3 and 3": ("The dog", (3, 3)),
        "must have start < end <= 7, got 3 and 2": ("The dog", (3, 2)),
        "must have start < end <= 7, got 4 and 8": ("The dog", (4, 8)),
        "has no token": ("The dog", (3, 4)),
        "lost tokens to truncation": (long, (0, 800)),
    }
    texts = [text for text, _ in bad.values()]
    spans = spans_of(*([(0, 3), span] for _, span in bad.values()), [(0, 3)])
    *failed, good = embed(
        running,
        [*texts, "The dog"],
        unit=VECTOR_UNIT_SPANS,
        spans=spans,
        truncation=TRUNCATION_RIGHT,
    )
    for number, (result, problem) in enumerate(zip(failed, bad, strict=True)):
        assert result.error.message == f"spans[{number}].spans[1]: {problem}"
        assert result.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert not result.HasField("embeddings")
    assert places(good) == [(0, 3)]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"unit": VECTOR_UNIT_SPANS}, "needs an entry for each of 2 texts, got 0"),
        (
            {"unit": VECTOR_UNIT_SPANS, "spans": spans_of([(0, 1)])},
            "needs an entry for each of 2 texts, got 1",
        ),
        ({"spans": spans_of([(0, 1)], [])}, "are for the unit of spans only, got 2"),
        ({"unit": VECTOR_UNIT_WORDS, "spans": spans_of([], [])}, "are for the unit of spans only"),
    ],
)
def test_spans_must_suit_the_unit_and_the_texts(running: Running, fields: Any, problem: str):
    request = EmbedTokensRequest(texts=["a", "b"], **fields)
    failure = failure_of(running.embedding.EmbedTokens, request)
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith(f"spans: {problem}")


def test_an_unknown_unit_is_named(running: Running):
    unknown: Any = 9
    failure = failure_of(
        running.embedding.EmbedTokens, EmbedTokensRequest(texts=["a"], unit=unknown)
    )
    assert failure.details() == "unit: has no value 9"


def test_an_answer_with_too_many_spans_is_refused_before_the_model_runs(start: Any):
    server = start(max_response_bytes=40_000)
    spans = spans_of([(0, 3)] * 300)
    request = EmbedTokensRequest(texts=["The dog"], unit=VECTOR_UNIT_SPANS, spans=spans)
    failure = failure_of(server.embedding.EmbedTokens, request)
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "the answer could take" in failure.details()


def test_the_client_sends_spans_with_their_texts(running: Running):
    with Client(f"127.0.0.1:{running.server.port}") as client:
        words = client.embed_tokens(TEXT, unit="words", model="tiny-bert")
        assert [TEXT[word.start : word.end] for word in words.spans] == WORDS
        spans = [[(0, 3)]] * 300 + [[(4, 5), (9, 10)]]
        good, *_, bad = client.embed_tokens(
            ["The dog"] * 301, unit="spans", spans=spans, model="tiny-bert"
        )
        assert good.embeddings.shape == (1, words.embeddings.shape[1])
        assert isinstance(bad.error, TextError)
        assert bad.error.index == 300
        assert bad.error.message == "spans[1]: must have start < end <= 7, got 9 and 10"
        with pytest.raises(ValueError, match="which needs them"):
            client.embed_tokens("a", unit="spans")
        with pytest.raises(ValueError, match="spans must be those of 2 texts, not of 1"):
            client.embed_tokens(["a", "b"], unit="spans", spans=[[(0, 1)]])
