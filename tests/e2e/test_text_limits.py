"""A text of too many characters is a fault of that text, in every method that takes texts."""

from typing import Any

import grpc
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest, FillMaskRequest
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateRequest,
    TranslationPair,
)

from tests.support.serving import Running, failure_of

MAX_CHARACTERS = 20_000
METHODS = ("Translate", "Score", "Embed", "EmbedTokens", "FillMask", "Tokenize")


def results(running: Running, method: str, texts: list[str]) -> Any:
    translation, embedding = running.translation, running.embedding
    pairs = [TranslationPair(source=text, target="Ja.") for text in texts]
    match method:
        case "Translate":
            return translation.Translate(TranslateRequest(texts=texts)).translations
        case "Score":
            return translation.Score(ScoreRequest(pairs=pairs)).scores
        case "Embed":
            return embedding.Embed(EmbedRequest(texts=texts)).results
        case "EmbedTokens":
            return embedding.EmbedTokens(EmbedTokensRequest(texts=texts)).results
        case "FillMask":
            return embedding.FillMask(FillMaskRequest(texts=texts)).results
        case _:
            request = TokenizeRequest(model="tiny-en-de", texts=texts)
            return running.models.Tokenize(request).results


@pytest.mark.parametrize("num_characters", [MAX_CHARACTERS + 1, 1_000_000])
@pytest.mark.parametrize("method", METHODS)
def test_a_text_of_too_many_characters_fails_alone(running: Running, method, num_characters):
    good, bad = results(running, method, ["The [MASK] barks.", "é" * num_characters])
    field = "pairs[1].source" if method == "Score" else "texts[1]"
    assert not good.HasField("error")
    assert bad.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert (
        bad.error.message == f"{field}: at most {MAX_CHARACTERS} characters, got {num_characters}"
    )


@pytest.mark.parametrize("method", METHODS)
def test_characters_are_code_points(running: Running, method: str):
    (result,) = results(running, method, ["🐶" * MAX_CHARACTERS])
    assert "at most" not in result.error.message or "tokens" in result.error.message


def test_a_target_of_too_many_characters_fails_its_pair(running: Running):
    texts = "Nein.", "é" * (MAX_CHARACTERS + 1)
    pairs = [TranslationPair(source="No.", target=text) for text in texts]
    good, bad = running.translation.Score(ScoreRequest(pairs=pairs)).scores
    assert not good.HasField("error")
    assert bad.error.message == "pairs[1].target: at most 20000 characters, got 20001"


def test_a_stream_of_a_text_of_too_many_characters_fails(running: Running):
    request = StreamTranslateRequest(text="é" * (MAX_CHARACTERS + 1))
    failure = failure_of(lambda: list(running.translation.StreamTranslate(request)))
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details() == "text: at most 20000 characters, got 20001"
