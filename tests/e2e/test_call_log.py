"""The log line of a call: its caller, and for a refused call the reason in the server's words."""

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from attendant.v1 import text_pb2
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest, FillMaskRequest
from attendant.v1.model_pb2 import GetModelRequest, TokenizeRequest
from attendant.v1.translation_pb2 import (
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
)
from attendant.v1.translation_pb2_grpc import TranslationServiceStub
from attendant_server.engine.calls import Call
from attendant_server.observability.logs import JsonFormatter

from tests.support.serving import Running, failure_of, wait_until

MARKER = "Xylophonwurst"
"""A word that occurs in no model, setting or message of the server."""
TEXT = "The dog sees the king."
MODELS = "tiny-bert/1, tiny-en-de/1"
LONG = TranslateOptions(beam_size=1000)

REFUSALS: dict[str, tuple[str, str, Any, str]] = {
    "no texts": ("translation", "Translate", TranslateRequest(), "texts: at least 1, got 0"),
    "too many texts": (
        "embedding",
        "Embed",
        EmbedRequest(texts=[MARKER] * 257),
        "texts: at most 256, got 257",
    ),
    "too many characters": (
        "translation",
        "StreamTranslate",
        StreamTranslateRequest(text=MARKER * 2000),
        "text: at most 20000 characters, got 26000",
    ),
    "too many tokens": (
        "translation",
        "StreamTranslate",
        StreamTranslateRequest(text="dog " * 100, splitting=text_pb2.SPLITTING_NONE),
        "text: at most 64 tokens, got 101",
    ),
    "a wide beam": (
        "translation",
        "Translate",
        TranslateRequest(texts=[MARKER], options=LONG),
        "options.beam_size: must be between 1 and 8, got 1000",
    ),
    "a wrong number": (
        "translation",
        "Translate",
        TranslateRequest(texts=[MARKER], options=TranslateOptions(length_penalty=1e30)),
        "options.length_penalty: must be between 0 and 10, and finite",
    ),
    "a layer that is not there": (
        "embedding",
        "EmbedTokens",
        EmbedTokensRequest(texts=[MARKER], layers=[7]),
        "layers: must be between -3 and 2, got 7",
    ),
    "a value of no meaning": (
        "models",
        "Tokenize",
        TokenizeRequest(texts=[MARKER], model="tiny-bert", side=77),  # type: ignore[arg-type]
        "side: has no value 77",
    ),
    "a model that is not there": (
        "embedding",
        "FillMask",
        FillMaskRequest(texts=[f"{MARKER} [MASK]"], model=MARKER),
        "model: no such model; there are tiny-bert/1",
    ),
    "no model": (
        "models",
        "GetModel",
        GetModelRequest(),
        f"model: must name one of {MODELS}",
    ),
    "a model of another kind": (
        "translation",
        "Translate",
        TranslateRequest(texts=[MARKER], model="tiny-bert"),
        "model: tiny-bert/1 is no translation model",
    ),
}


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO):
        yield


def call_line(caplog: pytest.LogCaptureFixture, request_id: str) -> dict[str, str]:
    """The fields of the log line of one call."""

    def found() -> list[str]:
        lines = (m for m in caplog.messages if m.startswith("event=call "))
        return [m for m in lines if f"request_id={request_id} " in m]

    wait_until(lambda: bool(found()))
    [line] = found()
    head, reason = line.split(" reason=")
    return dict(re.findall(r"(\w+)=(\S*)", head)) | {"reason": reason}


def end(running: Running, service: str, method: str, request: Any, request_id: str) -> None:
    """Make a call that fails."""
    call = getattr(getattr(running, service), method)
    metadata = (("x-request-id", request_id),)
    failure_of(lambda: list(call(request, metadata=metadata)))


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_call_says_which_field_broke_which_limit_and_not_what_was_sent(
    running: Running, caplog: pytest.LogCaptureFixture, name: str
):
    service, method, request, reason = REFUSALS[name]
    request_id = f"refused-{name.replace(' ', '-')}"
    end(running, service, method, request, request_id)
    line = call_line(caplog, request_id)
    assert line["reason"] == reason
    assert line["code"] in ("INVALID_ARGUMENT", "NOT_FOUND")
    assert not [m for m in caplog.messages if MARKER in m]


def test_a_call_that_found_the_queue_full_says_so(
    start: Callable[..., Running], caplog: pytest.LogCaptureFixture
):
    running, request = start(max_queued_texts=1, max_texts=1), TranslateRequest(texts=[TEXT])
    with running.held_engine():
        waiting = running.translation.Translate.future(request)
        running.wait_for_queued(1)
        end(running, "translation", "Translate", request, "full")
    waiting.result()
    line = call_line(caplog, "full")
    assert line["code"] == "RESOURCE_EXHAUSTED"
    assert line["reason"] == "1 texts are waiting and 1 more would exceed the limit of 1"


def test_a_call_that_fails_for_a_reason_that_nobody_foresaw_names_its_kind_only(
    start: Callable[..., Running],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    def fail(*_: Any) -> None:
        raise RuntimeError(f"cannot read {MARKER}")

    running = start()
    monkeypatch.setattr("attendant_server.application.tokenization.encode_all", fail)
    end(running, "embedding", "Embed", EmbedRequest(texts=[MARKER]), "unforeseen")
    assert call_line(caplog, "unforeseen")["reason"] == "RuntimeError"
    assert not [m for m in caplog.messages if MARKER in m]


def test_a_call_of_a_model_that_fails_says_so(
    start: Callable[..., Running],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    running = start()
    monkeypatch.setattr(Call, "put", lambda *_: 1 / 0)
    end(running, "embedding", "Embed", EmbedRequest(texts=[TEXT]), "broken")
    assert call_line(caplog, "broken")["reason"] == "the model failed while it ran this request"


def test_an_answered_call_has_no_reason_and_the_address_of_its_caller(
    running: Running, caplog: pytest.LogCaptureFixture
):
    with grpc.insecure_channel(f"127.0.0.1:{running.server.port}") as channel:
        request, metadata = TranslateRequest(texts=[TEXT]), (("x-request-id", "answered"),)
        TranslationServiceStub(channel).Translate(request, metadata=metadata)
    line = call_line(caplog, "answered")
    assert line["reason"] == ""
    assert line["code"] == "OK"
    assert re.fullmatch(r"127\.0\.0\.1:\d+", line["peer"])


def test_the_reason_is_a_field_of_the_line_as_json(
    running: Running, caplog: pytest.LogCaptureFixture
):
    end(running, "translation", "Translate", TranslateRequest(), "as-json")
    call_line(caplog, "as-json")
    [record] = [r for r in caplog.records if "request_id=as-json " in r.getMessage()]
    assert '"reason":"texts: at least 1, got 0"' in JsonFormatter().format(record)
