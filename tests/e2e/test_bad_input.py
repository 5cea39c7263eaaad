"""Requests that only a broken or malicious client sends.

Each gets a status without internal details, and the server keeps serving.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1 import model_pb2, text_pb2
from attendant.v1.embedding_pb2 import EmbedRequest, FillMaskRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest, TranslateResponse

from tests.support.serving import Running, failure_of

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
TRANSLATE = "/attendant.v1.TranslationService/Translate"
TEXT = b"\x12\x08The dog."  # field 2, texts
MAX_REQUEST_BYTES = 4 * 1024 * 1024
REPOSITORY = str(Path(__file__).parents[2])
LEAKS = ("Traceback", "Error", "google", "pb2", "site-packages", "python", REPOSITORY)


@pytest.fixture(autouse=True)
def server_goes_on(running: Running) -> Iterator[None]:
    yield
    [translation] = running.translation.Translate(TranslateRequest(texts=["The dog."])).translations
    assert translation.hypotheses


def send(running: Running, content: bytes, method: str = TRANSLATE, **arguments: Any) -> bytes:
    """Send raw bytes and return the bytes of the answer."""
    answer: bytes = running.channel.unary_unary(method)(content, timeout=60, **arguments)
    return answer


def code_of(running: Running, content: bytes, method: str = TRANSLATE) -> grpc.StatusCode:
    call = running.channel.unary_unary(method).future(content, timeout=60)
    assert not any(leak in call.details() for leak in LEAKS), call.details()
    assert len(call.details()) < 200
    code: grpc.StatusCode = call.code()
    return code


def field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    content = b""
    while value > 0x7F:
        content += bytes([value & 0x7F | 0x80])
        value >>= 7
    return content + bytes([value])


UNDECODABLE = {
    "truncated message": TEXT[:-3],
    "invalid UTF-8": field(2, b"\xff\xfe"),
    "overlong UTF-8": field(2, b"\xc0\x80"),
    "UTF-8 surrogate": field(2, b"\xed\xa0\x80"),
    "varint of 11 bytes": TEXT + b"\x20" + b"\xff" * 10 + b"\x01",
    "field number 0": TEXT + b"\x02\x00",
    "unmatched end of group": TEXT + b"\x14",
    "length beyond the end": b"\x12\xff\xff\xff\xff\x07",
    "noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("content", UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_bytes_that_are_no_message_are_invalid(running: Running, content: bytes):
    assert code_of(running, content) == INVALID


@pytest.mark.parametrize(
    "method",
    [
        "TranslationService/Score",
        "EmbeddingService/Embed",
        "EmbeddingService/EmbedTokens",
        "EmbeddingService/FillMask",
        "ModelService/ListModels",
        "ModelService/GetModel",
        "ModelService/Tokenize",
    ],
)
def test_every_method_refuses_bytes_that_are_no_message(running: Running, method: str):
    assert code_of(running, b"\xff\xff", f"/attendant.v1.{method}") == INVALID


def test_a_stream_refuses_bytes_that_are_no_message(running: Running):
    call = running.channel.unary_stream("/attendant.v1.TranslationService/StreamTranslate")
    assert failure_of(next, call(b"\xff\xff")).code() == INVALID


def test_health_refuses_bytes_that_are_no_message(running: Running):
    assert code_of(running, b"\xff\xff", "/grpc.health.v1.Health/Check") == INVALID


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_refuses_bytes_that_are_no_message(running: Running, version: str):
    reflect = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    failure = failure_of(next, running.channel.stream_stream(reflect)(iter([b"\xff\xff"])))
    assert failure.code() == INVALID
    assert not any(leak in failure.details() for leak in LEAKS)


def test_unknown_fields_are_ignored(running: Running):
    response = TranslateResponse.FromString(send(running, TEXT + field(1000, b"x" * 1_000_000)))
    assert response.translations[0].hypotheses


def test_nested_groups_are_ignored_or_refused(running: Running):
    groups = varint(1000 << 3 | 3) * 100 + varint(1000 << 3 | 4) * 100
    assert code_of(running, TEXT + groups) in (grpc.StatusCode.OK, INVALID)
    deep = varint(1000 << 3 | 3) * 100_000 + varint(1000 << 3 | 4) * 100_000
    assert code_of(running, TEXT + deep) == INVALID


def test_a_field_of_the_wrong_wire_type_is_not_taken_for_the_field(running: Running):
    assert code_of(running, b"\x10\x05") == INVALID  # the field of texts as a varint


def test_the_last_of_equal_scalars_counts(running: Running):
    twice = field(1, b"unknown") + field(1, b"tiny-en-de") + TEXT
    assert TranslateResponse.FromString(send(running, twice)).model == "tiny-en-de/1"


def test_an_enum_value_that_does_not_exist_is_invalid(running: Running):
    assert code_of(running, TEXT + b"\x20\x4d") == INVALID  # truncation = 77


def test_an_empty_message_has_too_few_texts(running: Running):
    assert code_of(running, b"") == INVALID


def test_messages_may_be_four_mebibytes_and_not_a_byte_more(running: Running):
    padding = MAX_REQUEST_BYTES - len(TEXT) - len(field(1000, b"x" * 4_000_000)) + 4_000_000
    exact = TEXT + field(1000, b"x" * padding)
    assert len(exact) == MAX_REQUEST_BYTES
    assert code_of(running, exact) == grpc.StatusCode.OK
    assert code_of(running, exact[:-1] + b"xx") in (EXHAUSTED, INVALID)
    too_long = TEXT + field(1000, b"x" * (padding + 1))
    assert code_of(running, too_long) == EXHAUSTED


def test_a_message_that_grows_when_decompressed_is_cut_off(running: Running):
    bomb = TEXT + field(1000, bytes(64 * 1024 * 1024))
    failure = failure_of(send, running, bomb, compression=grpc.Compression.Gzip)
    assert failure.code() == EXHAUSTED


def test_a_million_empty_texts_are_refused_by_their_number(running: Running):
    assert code_of(running, b"\x12\x00" * 1_000_000) == INVALID


@pytest.mark.parametrize("num_texts", [0, 257, 10_000])
def test_the_number_of_texts_is_bounded(running: Running, num_texts: int):
    texts = ["The dog."] * num_texts
    for call, request in [
        (running.translation.Translate, TranslateRequest(texts=texts)),
        (running.embedding.Embed, EmbedRequest(texts=texts)),
        (running.models.Tokenize, model_pb2.TokenizeRequest(model="tiny-bert", texts=texts)),
    ]:
        failure = failure_of(call, request)
        assert failure.code() == INVALID
        limit = "at most 256" if num_texts else "at least 1"
        assert failure.details() == f"texts: {limit}, got {num_texts}"


def test_as_many_texts_as_allowed_are_answered(running: Running):
    response = running.embedding.Embed(EmbedRequest(texts=["a"] * 256))
    assert len(response.results) == 256


@pytest.mark.parametrize("text", ["a" * 20_000, " " * 20_000, "e" + "\u0301" * 19_999])
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


BAD_OPTIONS = [
    {"beam_size": 0},
    {"beam_size": 9},
    {"beam_size": 2**32 - 1},
    {"num_hypotheses": 0},
    {"num_hypotheses": 2},
    {"beam_size": 4, "num_hypotheses": 5},
    {"max_output_tokens": 0},
    {"max_output_tokens": 65},
    {"max_output_tokens": 2**32 - 1},
    {"max_output_tokens": 5, "min_output_tokens": 6},
    {"min_output_tokens": 2**31 - 1},
    {"length_penalty": -0.5},
    {"length_penalty": 10.5},
    {"length_penalty": float("nan")},
    {"length_penalty": float("inf")},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_options_out_of_range_are_named(running: Running, options: dict[str, Any]):
    request = TranslateRequest(texts=["The dog."], options=TranslateOptions(**options))
    failure = failure_of(running.translation.Translate, request)
    assert failure.code() == INVALID
    assert failure.details().startswith(f"options.{list(options)[-1]}: ")


def test_the_smallest_penalty_that_is_not_zero_is_valid(running: Running):
    [tiny] = struct.unpack("<f", b"\x01\x00\x00\x00")
    request = TranslateRequest(texts=["The dog."], options=TranslateOptions(length_penalty=tiny))
    assert running.translation.Translate(request).translations[0].hypotheses


@pytest.mark.parametrize("top_k", [0, 101, 2**31 - 1, 2**32 - 1])
def test_the_number_of_candidates_is_bounded(running: Running, top_k: int):
    request = FillMaskRequest(texts=["[MASK]"], top_k=top_k)
    failure = failure_of(running.embedding.FillMask, request)
    assert failure.code() == INVALID
    assert failure.details() == f"top_k: must be between 1 and 100, got {top_k}"


@pytest.mark.parametrize("text", ["", " ", "\n", " \t\r\n", "\u00a0\u2003\u3000"])
def test_texts_of_white_space_fail_alone(running: Running, text: str):
    for results in (
        running.translation.Translate(TranslateRequest(texts=[text, "The dog."])).translations,
        running.embedding.Embed(EmbedRequest(texts=[text, "The dog."])).results,
    ):
        assert [result.error.code for result in results] == [INVALID.value[0], 0]


ODD_TEXTS = {
    "NUL": "The\x00dog.",
    "control characters": "\x01\x02The \x7fdog.\x1b[31m",
    "byte order mark": "\ufeffThe dog.",
    "right to left": "\u202eThe dog.\u202c",
    "zero width joiners": "The\u200d\u200c\u200bdog.",
    "combining marks": "The do\u0301\u0302\u0303g.",
    "family": "👩\u200d👩\u200d👧\u200d👦 dog",
    "lone variation selector": "\ufe0f dog",
    "last code point": "\U0010ffff \ue000 dog",
    "unknown script": "犬が吠えている dog",
    "special tokens": "<s> </s> <pad> [CLS] [SEP] [PAD] >>fra<< dog",
    "format strings": "%s %d {} {0} dog <b>' OR 1=1 --",
}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
def test_odd_texts_are_read_and_their_tokens_lie_inside_them(running: Running, text: str):
    assert running.translation.Translate(TranslateRequest(texts=[text])).translations[0].hypotheses
    assert not running.embedding.Embed(EmbedRequest(texts=[text])).results[0].HasField("error")
    for model in ("tiny-bert", "tiny-en-de"):
        request = model_pb2.TokenizeRequest(model=model, texts=[text])
        for token in running.models.Tokenize(request).results[0].tokens:
            assert token.start <= token.end <= len(text)


@pytest.mark.parametrize("text", ["犬が吠えている", "😀", " 💩 "])
def test_a_text_of_unknown_characters_only_is_not_embedded(running: Running, text: str):
    response = running.embedding.Embed(EmbedRequest(texts=[text, "The dog."]))
    [error, other] = [result.error for result in response.results]
    assert error.code == INVALID.value[0]
    assert error.message == "texts[0]: has only characters that the model does not know"
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
        assert code_of(running, TEXT, method) == grpc.StatusCode.UNIMPLEMENTED
