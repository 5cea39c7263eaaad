"""Bad requests over Connect and gRPC-Web get an error that names what is wrong."""

import json

import pytest
from attendant.v1 import translation_pb2 as translation
from attendant_server.errors import InvalidRequest
from attendant_server.http.connect.codecs import read_json
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.connect import GRPC_WEB, STREAMS, TRANSLATION, enveloped, outcome
from tests.support.http import HttpClient

TRANSLATE, STREAM = f"{TRANSLATION}Translate", f"{TRANSLATION}StreamTranslate"
GOOD = json.dumps({"model": "tiny-en-de", "texts": ["The old cat."]}).encode()
SECRET = "my secret"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "body: must be a JSON object"),
        (b"[]", "body: must be a JSON object"),
        (b"null", "body: must be a JSON object"),
        (b'{"texts":', "body: is malformed"),
        (b'{"texts": ["\xff"]}', "body: is malformed"),
        (b'{"texts": ["\\ud800"]}', "texts[0]: has a value of another type"),
        (b'{"texts": ' + b"[" * 10_000, "body: is malformed"),
        (b'{"text": "my secret"}', "text: is unknown here"),
        (b'{"options": {"beamsize": 2}}', "options.beamsize: is unknown here"),
        (b'{"options": {"beamSize": "my secret"}}', "options.beamSize: has a value of another"),
        (b'{"options": {"beamSize": 1e400}}', "options.beamSize: has a value of another"),
        (b'{"texts": "my secret"}', "texts: has a value of another type"),
        (b'{"controls": {"my secret": 1}}', "controls: has a value of another type"),
        (b'{"texts": [1]}', "texts: has a value of another type"),
        (b'{"offsetUnit": "my secret"}', "offsetUnit: has a value of another type"),
        (b'{"texts": ["a"], "texts": ["b"]}', "has a field several times"),
        (b'{"my secret": 1}', "body: is malformed"),
        (b'{"texts": []}', "texts: at least 1, got 0"),
        (b'{"texts": ["a"], "options": {"beamSize": 99}}', "options.beam_size: "),
    ],
)
def test_bad_json_is_refused_without_repeating_it(http, caplog, body, problem):
    caplog.set_level("INFO")
    answer = http.post(TRANSLATE, body)
    assert (answer.status, answer.json["code"]) == (400, "invalid_argument")
    assert problem in answer.json["message"]
    assert answer.json["details"][0]["debug"]["fieldViolations"][0]["description"]
    assert SECRET not in answer.content.decode() + caplog.text


@pytest.mark.parametrize(
    ("headers", "status", "code", "problem"),
    [
        ({"content_type": "text/plain"}, 415, "invalid_argument", "content-type: must be"),
        ({"content_type": "application/grpc"}, 415, "invalid_argument", "content-type: must be"),
        ({"content_type": STREAMS[0]}, 415, "invalid_argument", "content-type: must be"),
        ({"content_encoding": "gzip"}, 501, "unimplemented", "content-encoding"),
        ({"connect_protocol_version": "2"}, 400, "invalid_argument", "connect-protocol-version"),
        ({"connect_timeout_ms": "-1"}, 400, "invalid_argument", "connect-timeout-ms"),
        ({"connect_timeout_ms": "12345678901"}, 400, "invalid_argument", "connect-timeout-ms"),
        ({"attendant_class": "fast"}, 400, "invalid_argument", "attendant-class"),
    ],
)
def test_bad_headers_of_a_unary_call_are_refused(http, headers, status, code, problem):
    answer = http.post(TRANSLATE, GOOD, **headers)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert problem in answer.json["message"]
    assert ("accept-post" in answer.headers) is (status == 415)


ENVELOPE = enveloped(b'{"model": "tiny-en-de", "text": "The old cat."}')


@pytest.mark.parametrize(
    ("body", "headers", "code", "problem"),
    [
        (b"", {}, "unimplemented", "no message"),
        (b"\0\0", {}, "invalid_argument", "body: is incomplete"),
        (ENVELOPE[:-1], {}, "invalid_argument", "body: is incomplete"),
        (ENVELOPE * 2, {}, "unimplemented", "more than one message"),
        (b"\1" + ENVELOPE[1:], {}, "unimplemented", "compressed"),
        (b"\2" + ENVELOPE[1:], {}, "invalid_argument", "unknown flags"),
        (b"\0\xff\xff\xff\xff", {}, "invalid_argument", "body: is incomplete"),
        (ENVELOPE, {"connect_content_encoding": "br"}, "unimplemented", "connect-content-encoding"),
        (ENVELOPE, {"content_encoding": "gzip"}, "unimplemented", "content-encoding"),
        (ENVELOPE, {"connect_timeout_ms": "soon"}, "invalid_argument", "connect-timeout-ms"),
    ],
)
def test_bad_streams_are_refused_in_the_end_of_the_stream(http, body, headers, code, problem):
    answer = http.post(STREAM, body, content_type=STREAMS[0], **headers)
    found = outcome(answer, translation.StreamTranslateResponse, STREAMS[0])
    assert (found.code, found.messages) == (code, [])
    assert problem in found.message


@pytest.mark.parametrize(
    ("body", "headers", "code", "problem"),
    [
        (enveloped(b"\xff"), {}, "invalid_argument", "request: cannot be decoded"),
        (b"", {}, "unimplemented", "no message"),
        (enveloped(b"", 0x80), {}, "invalid_argument", "unknown flags"),
        (enveloped(b""), {"grpc_encoding": "gzip"}, "unimplemented", "grpc-encoding"),
        (enveloped(b""), {"grpc_timeout": "1"}, "invalid_argument", "grpc-timeout"),
        (enveloped(b"\x0a\x04none\x12\x01a"), {}, "not_found", "no such model"),
    ],
)
def test_bad_requests_of_grpc_web_are_refused_in_trailers(http, body, headers, code, problem):
    answer = http.post(TRANSLATE, body, content_type=GRPC_WEB[0], **headers)
    found = outcome(answer, translation.TranslateResponse, GRPC_WEB[0])
    assert (found.code, found.messages) == (code, [])
    assert problem in found.message


def test_text_that_is_no_base64_is_refused(http):
    answer = http.post(TRANSLATE, b"???", content_type=GRPC_WEB[2])
    found = outcome(answer, translation.TranslateResponse, GRPC_WEB[2])
    assert (found.code, found.message) == ("invalid_argument", "body: is no base64")


def test_methods_that_there_are_not(http):
    assert http.post(f"{TRANSLATION}Nothing", {}).status == 404
    answer = http.get(TRANSLATE)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_large_body_is_refused(running):
    with HttpClient(running.server.http_port) as http:
        http.connection.putrequest("POST", TRANSLATE)
        http.connection.putheader("content-type", "application/json")
        http.connection.putheader("content-length", str((4 << 20) + 1))
        http.connection.endheaders()
        response = http.connection.getresponse()
        assert (response.status, json.load(response)["code"]) == (413, "invalid_argument")


@settings(max_examples=30, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["texts", "options", "beamSize", "model", "controls", "markup", "x"]),
        inner,
        max_size=3,
    ),
    max_leaves=8,
))  # fmt: skip
def test_any_json_is_read_or_refused(value):
    try:
        message = read_json(json.dumps(value).encode(), translation.TranslateRequest)
    except InvalidRequest:
        return
    assert json_format.ParseDict(value, translation.TranslateRequest()) == message
