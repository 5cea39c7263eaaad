"""Every method that takes or returns offsets does so in the unit of the request."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from attendant.v1.embedding_pb2 import (
    CHUNKING_SENTENCES,
    VECTOR_UNIT_SPANS,
    VECTOR_UNIT_WORDS,
    EmbedRequest,
    EmbedTokensRequest,
    FillMaskRequest,
    Span,
    TextSpans,
)
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.text_pb2 import (
    OFFSET_UNIT_CODE_POINTS,
    OFFSET_UNIT_UTF8_BYTES,
    OFFSET_UNIT_UTF16_UNITS,
)
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateRequest,
    TranslationPair,
)
from attendant_client import Client

from tests.support.serving import Running, failure_of

TEXT = "🐶 Der  Lehrer grüßt. Die Frau 🐶 ruft den König!"
SECOND = "Der König."
UNITS = {
    OFFSET_UNIT_CODE_POINTS: ("utf-32-le", 4),
    OFFSET_UNIT_UTF8_BYTES: ("utf-8", 1),
    OFFSET_UNIT_UTF16_UNITS: ("utf-16-le", 2),
}


def part(text: str, start: int, end: int, unit: Any) -> str:
    """A part of a text by offsets in a unit, as a client whose strings have this unit cuts it."""
    encoding, size = UNITS[unit]
    return text.encode(encoding)[start * size : end * size].decode(encoding)


def embed(server: Running, **fields: Any) -> Iterator[tuple[str, Any]]:
    request = EmbedRequest(texts=[TEXT, SECOND], chunking=CHUNKING_SENTENCES, **fields)
    for text, result in zip(request.texts, server.embedding.Embed(request).results, strict=True):
        yield from ((text, chunk) for chunk in result.chunks)


def embed_tokens(server: Running, **fields: Any) -> Iterator[tuple[str, Any]]:
    request = EmbedTokensRequest(texts=[TEXT, SECOND], **fields)
    response = server.embedding.EmbedTokens(request)
    for text, result in zip(request.texts, response.results, strict=True):
        yield from ((text, each) for each in (*result.tokens, *result.spans))


def embed_words(server: Running, **fields: Any) -> Iterator[tuple[str, Any]]:
    yield from embed_tokens(server, unit=VECTOR_UNIT_WORDS, **fields)


def fill_mask(server: Running, **fields: Any) -> Iterator[tuple[str, Any]]:
    text = "🐶 ü [MASK] é [MASK]"
    request = FillMaskRequest(texts=[text], **fields)
    yield from ((text, mask) for mask in server.embedding.FillMask(request).results[0].masks)


def tokenize(server: Running, **fields: Any) -> Iterator[tuple[str, Any]]:
    request = TokenizeRequest(texts=[TEXT, SECOND], model="tiny-bert", **fields)
    for text, result in zip(request.texts, server.models.Tokenize(request).results, strict=True):
        yield from ((text, token) for token in result.tokens)


def score(server: Running, **fields: Any) -> Iterator[tuple[str, Any]]:
    pair = TranslationPair(source="The dog.", target="Der 🐶 König.")
    response = server.translation.Score(ScoreRequest(pairs=[pair], return_tokens=True, **fields))
    yield from ((pair.target, token) for token in response.scores[0].tokens)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "method", [embed, embed_tokens, embed_words, fill_mask, tokenize, score], ids=str
)
def test_places_in_texts_have_the_unit_of_the_request(running: Running, method: Any, unit: int):
    expected = [(text, text[each.start : each.end]) for text, each in method(running)]
    assert len(expected) > 1
    found = [
        (text, part(text, each.start, each.end, unit))
        for text, each in method(running, offset_unit=unit)
    ]
    assert found == expected


def pairs_of(hypothesis: Any, text: str, unit: int) -> list[tuple[str, str]]:
    return [
        (
            part(text, each.source_start, each.source_end, unit),
            part(hypothesis.text, each.target_start, each.target_end, unit),
        )
        for each in hypothesis.sentences
    ]


@pytest.mark.parametrize("unit", UNITS)
def test_sentences_have_places_in_the_text_and_in_its_translation(running: Running, unit: Any):
    text = "🐶 The dog sees the king! 🐶 The woman calls the baker. 🐶"
    (plain,) = running.translation.Translate(
        TranslateRequest(texts=[text], return_sentences=True)
    ).translations
    expected = pairs_of(plain.hypotheses[0], text, OFFSET_UNIT_CODE_POINTS)
    assert len(expected) == 2
    assert "🐶" in plain.hypotheses[0].text
    (found,) = running.translation.Translate(
        TranslateRequest(texts=[text], return_sentences=True, offset_unit=unit)
    ).translations
    assert pairs_of(found.hypotheses[0], text, unit) == expected
    *_, last = running.translation.StreamTranslate(
        StreamTranslateRequest(text=text, return_sentences=True, offset_unit=unit)
    )
    assert pairs_of(last.translation.hypotheses[0], text, unit) == expected


@pytest.mark.parametrize("unit", [OFFSET_UNIT_UTF8_BYTES, OFFSET_UNIT_UTF16_UNITS])
def test_spans_of_requests_have_the_unit_and_are_refused_inside_characters(
    running: Running, unit: Any
):
    encoding, size = UNITS[unit]
    text = "Die 🐶 Frau"
    places = [len(text[:i].encode(encoding)) // size for i in range(len(text) + 1)]
    spans = [(start, end) for start in range(places[-1]) for end in (start + 1, places[-1] + 1)]
    results = running.embedding.EmbedTokens(
        EmbedTokensRequest(
            texts=[text] * len(spans),
            unit=VECTOR_UNIT_SPANS,
            spans=[TextSpans(spans=[Span(start=s, end=e)]) for s, e in spans],
            offset_unit=unit,
        )
    ).results
    for (start, end), result in zip(spans, results, strict=True):
        problem = result.error.message.partition(": ")[2]
        if end > places[-1]:
            assert problem == f"must have start < end <= {places[-1]}, got {start} and {end}"
        elif start not in places or end not in places:
            assert problem == "must not begin or end inside a character"
        elif part(text, start, end, unit).isspace():
            assert problem == "has no token"
        else:
            assert not problem
            assert [(each.start, each.end) for each in result.spans] == [(start, end)]


def test_an_unknown_unit_is_refused_by_every_method(running: Running):
    unit: Any = 9
    calls = [
        (running.embedding.Embed, EmbedRequest(texts=["a"], offset_unit=unit)),
        (running.embedding.EmbedTokens, EmbedTokensRequest(texts=["a"], offset_unit=unit)),
        (running.embedding.FillMask, FillMaskRequest(texts=["a"], offset_unit=unit)),
        (running.models.Tokenize, TokenizeRequest(texts=["a"], offset_unit=unit)),
        (running.translation.Translate, TranslateRequest(texts=["a"], offset_unit=unit)),
        (running.translation.Score, ScoreRequest(offset_unit=unit)),
    ]
    for method, request in calls:
        failure = failure_of(method, request)
        assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert failure.details() == "offset_unit: has no value 9"
    stream = StreamTranslateRequest(text="a", offset_unit=unit)
    failure = failure_of(lambda: list(running.translation.StreamTranslate(stream)))
    assert failure.details() == "offset_unit: has no value 9"


def test_the_client_returns_places_in_its_unit(running: Running):
    with Client(f"127.0.0.1:{running.server.port}") as client:
        found = client.tokenize(TEXT, model="tiny-bert", offset_unit="utf16_units")
        assert max(token.end for token in found.tokens) == len(TEXT.encode("utf-16-le")) // 2
