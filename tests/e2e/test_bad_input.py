"""Requests that only a broken or malicious client sends, and more of their answers than a status.

`tests.e2e.bad_inputs` has a table of requests whose status says enough.
"""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from attendant.v1 import model_pb2, text_pb2
from attendant.v1.embedding_pb2 import EmbedRequest, FillMaskRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest, TranslateResponse

from tests.e2e.bad_inputs.table import TRANSLATE, field
from tests.e2e.bad_inputs.text_rows import BLANK, LONG, ODD
from tests.support.serving import TIMEOUT_SECONDS, Running, failure_of

INVALID = grpc.StatusCode.INVALID_ARGUMENT
TEXT = b"\x12\x08The dog."  # field 2, texts
REPOSITORY = str(Path(__file__).parents[2])
LEAKS = ("Traceback", "Error", "google", "pb2", "site-packages", "python", REPOSITORY)


@pytest.fixture(autouse=True)
def server_goes_on(running: Running) -> Iterator[None]:
    yield
    [translation] = running.translation.Translate(TranslateRequest(texts=["The dog."])).translations
    assert translation.hypotheses


def test_a_stream_refuses_bytes_that_are_no_message(running: Running):
    call = running.channel.unary_stream("/attendant.v1.TranslationService/StreamTranslate")
    assert failure_of(next, call(b"\xff\xff")).code() == INVALID


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_refuses_bytes_that_are_no_message(running: Running, version: str):
    reflect = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    failure = failure_of(next, running.channel.stream_stream(reflect)(iter([b"\xff\xff"])))
    assert failure.code() == INVALID
    assert not any(leak in failure.details() for leak in LEAKS)


def test_the_last_of_equal_scalars_counts(running: Running):
    twice = field(1, b"unknown") + field(1, b"tiny-en-de") + TEXT
    answer = running.channel.unary_unary(TRANSLATE)(twice, timeout=TIMEOUT_SECONDS)
    assert TranslateResponse.FromString(answer).model == "tiny-en-de/1"


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_text_as_long_as_allowed_fails_alone_if_it_is_not_split(running: Running, text: str):
    request = TranslateRequest(
        texts=[text, "The dog."],
        splitting=text_pb2.SPLITTING_NONE,
        text_normalization=text_pb2.TEXT_NORMALIZATION_NONE,
    )
    response = running.translation.Translate(request)
    assert response.translations[0].error.code == INVALID.value[0]
    assert response.translations[1].hypotheses


def test_more_tokens_than_a_batch_holds_are_run_in_several(running: Running):
    response = running.embedding.Embed(EmbedRequest(texts=["dog " * 60] * 256))
    assert response.token_counts.num_input_tokens == 256 * 62


@pytest.mark.parametrize("text", BLANK.values(), ids=BLANK)
def test_texts_of_white_space_fail_alone(running: Running, text: str):
    for results in (
        running.translation.Translate(TranslateRequest(texts=[text, "The dog."])).translations,
        running.embedding.Embed(EmbedRequest(texts=[text, "The dog."])).results,
    ):
        assert [result.error.code for result in results] == [INVALID.value[0], 0]


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_the_tokens_of_odd_texts_lie_inside_them(running: Running, text: str):
    for model in ("tiny-bert", "tiny-en-de"):
        request = model_pb2.TokenizeRequest(model=model, texts=[text])
        for token in running.models.Tokenize(request).results[0].tokens:
            assert token.start <= token.end <= len(text)


@pytest.mark.parametrize("text", ["犬が吠えている", "😀", " 💩 "])
def test_a_text_of_unknown_characters_only_is_not_embedded(running: Running, text: str):
    response = running.embedding.Embed(EmbedRequest(texts=[text, "The dog."]))
    [error, other] = [result.error for result in response.results]
    assert error.code == INVALID.value[0]
    assert error.message == "texts[0]: has nothing that the vocabulary of the model knows"
    assert not other.code
    as_sent = EmbedRequest(texts=[text], text_normalization=text_pb2.TEXT_NORMALIZATION_NONE)
    assert not running.embedding.Embed(as_sent).results[0].HasField("error")


def test_special_tokens_in_a_text_are_plain_text(running: Running):
    for model, text in (
        ("tiny-bert", "[CLS] [SEP] [MASK] [PAD]"),
        ("tiny-en-de", "<s> </s> <pad>"),
    ):
        request = model_pb2.TokenizeRequest(model=model, texts=[text, "dog"])
        odd, plain = running.models.Tokenize(request).results
        special = [token.id for token in plain.tokens if token.special]
        ids = [token.id for token in odd.tokens]
        assert [i for i in ids if i in special] == special


def test_a_translation_that_never_ends_is_cut_off(running: Running):
    options = TranslateOptions(return_tokens=True, min_output_tokens=64)
    request = TranslateRequest(texts=["The dog."], options=options)
    [hypothesis] = running.translation.Translate(request).translations[0].hypotheses
    assert len(hypothesis.tokens) == 64


def test_an_answer_that_would_be_too_large_is_refused_before_any_work(start):
    small = start(max_response_bytes=20_000)
    before = small.metric("attendant_encode_batch_texts_sum", model="tiny-bert/1")
    texts = ["dog " * 50] * 10
    for call, request in [
        (small.embedding.EmbedTokens, EmbedRequest(texts=texts)),
        (small.translation.Translate, TranslateRequest(texts=texts * 2)),
        (small.embedding.FillMask, FillMaskRequest(texts=["[MASK] " * 50] * 10)),
        (small.models.Tokenize, model_pb2.TokenizeRequest(model="tiny-bert", texts=texts * 10)),
    ]:
        failure = failure_of(call, request)
        assert failure.code() == INVALID
        assert "at most" in failure.details()
    assert small.metric("attendant_encode_batch_texts_sum", model="tiny-bert/1") == before


def test_an_unknown_method_is_unimplemented(running: Running):
    for method in ("/attendant.v1.TranslationService/Nothing", "/nothing/Nothing", "/x"):
        call = running.channel.unary_unary(method).future(TEXT, timeout=TIMEOUT_SECONDS)
        assert call.code() == grpc.StatusCode.UNIMPLEMENTED
        assert not any(leak in call.details() for leak in LEAKS)
