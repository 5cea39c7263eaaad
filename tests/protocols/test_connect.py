"""Every method of attendant.v1 over Connect and gRPC-Web has the answers that it has over gRPC."""

import json
import socket

import pytest
from attendant.v1 import embedding_pb2 as embedding
from attendant.v1 import language_model_pb2 as language
from attendant.v1 import model_pb2 as model
from attendant.v1 import text_pb2 as text
from attendant.v1 import translation_pb2 as translation
from attendant_server.security.api_keys import new_api_key
from google.protobuf.message_factory import GetMessageClass

from tests.support.connect import GRPC_WEB, STREAMS, TRANSLATION, UNARY, call, written
from tests.support.http import HttpClient
from tests.support.serving import metrics_page, running_server, sum_of_metric, wait_until

TEXT = "The dog sees the king. The old cat."
TEXTS = [TEXT, "The old cat.", "Ünïcödé 😀", ""]
MODEL = "tiny-en-de/1"
TRANSLATE = translation.TranslateRequest(
    model="tiny-en-de",
    texts=TEXTS,
    options=translation.TranslateOptions(beam_size=4, num_hypotheses=2, return_tokens=True),
    offset_unit=text.OFFSET_UNIT_UTF16_UNITS,
)
STREAM = translation.StreamTranslateRequest(model="tiny-en-de", text=TEXT)
PROMPT = "the old king"
CODES = ("OK", "INVALID_ARGUMENT")
CALLS = [
    ("translation", "Translate", TRANSLATE),
    ("translation", "StreamTranslate", STREAM),
    (
        "translation",
        "Score",
        translation.ScoreRequest(
            model="tiny-en-de",
            pairs=[translation.TranslationPair(source=TEXT, target="Der Hund.")],
            return_tokens=True,
        ),
    ),
    ("embedding", "Embed", embedding.EmbedRequest(model="tiny-bert", texts=TEXTS[:3])),
    ("embedding", "EmbedTokens", embedding.EmbedTokensRequest(model="tiny-bert", texts=TEXTS[:3])),
    ("embedding", "FillMask", embedding.FillMaskRequest(model="tiny-bert", texts=["a [MASK]."])),
    ("embedding", "Classify", embedding.ClassifyRequest(model="tiny-classifier", texts=TEXTS[:2])),
    ("embedding", "EmbedSparse", embedding.EmbedSparseRequest(model="tiny-splade", texts=[TEXT])),
    (
        "embedding",
        "Similarity",
        embedding.SimilarityRequest(model="tiny-bert", queries=TEXTS[:1], texts=TEXTS[1:3]),
    ),
    ("language", "Generate", language.GenerateRequest(model="tiny-lm", prompts=[PROMPT])),
    ("language", "StreamGenerate", language.StreamGenerateRequest(model="tiny-lm", prompt=PROMPT)),
    ("language", "ScoreText", language.ScoreTextRequest(model="tiny-lm", texts=[PROMPT])),
    ("models", "ListModels", model.ListModelsRequest()),
    ("models", "GetModel", model.GetModelRequest(model="tiny-bert")),
    ("models", "Tokenize", model.TokenizeRequest(model="tiny-en-de", texts=TEXTS)),
]
SERVICES = {
    "translation": "TranslationService",
    "embedding": "EmbeddingService",
    "language": "LanguageModelService",
    "models": "ModelService",
}
KINDS = {
    method.name: (GetMessageClass(method.input_type), GetMessageClass(method.output_type))
    for module in (translation, embedding, language, model)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def whole(messages):
    """The last message without its times, and the text of all pieces."""
    last = messages[-1]
    pieces = "".join(getattr(message, "delta", "") for message in messages)
    for name in {"timings", "delta"} & set(last.DESCRIPTOR.fields_by_name):
        last.ClearField(name)
    return pieces, last


@pytest.mark.parametrize(("stub", "method", "request_"), CALLS, ids=[each[1] for each in CALLS])
def test_a_method_answers_as_over_grpc(running, http, stub, method, request_):
    answer = getattr(getattr(running, stub), method)(request_)
    is_stream = method.startswith("Stream")
    expected = whole(list(answer) if is_stream else [answer])
    path = f"/attendant.v1.{SERVICES[stub]}/{method}"
    for content_type in [*(STREAMS if is_stream else UNARY), *GRPC_WEB]:
        found = call(http, path, request_, KINDS[method][1], content_type)
        assert found.code == "ok"
        assert whole(found.messages) == expected


@pytest.mark.parametrize("method", ["BulkTranslate", "BulkEmbed"])
@pytest.mark.parametrize("content_type", [*STREAMS, *GRPC_WEB])
def test_streams_of_requests_need_grpc(http, method, content_type):
    request, response = KINDS[method]
    service = SERVICES["translation" if method == "BulkTranslate" else "embedding"]
    found = call(http, f"/attendant.v1.{service}/{method}", request(), response, content_type)
    assert (found.code, found.messages) == ("unimplemented", [])
    assert method in found.message


def test_calls_are_counted_and_logged_like_those_of_grpc(running, http, caplog):
    caplog.set_level("INFO")
    labels = {"grpc_service": "attendant.v1.TranslationService", "grpc_method": "Translate"}

    def counted():
        page, name = metrics_page(running.server), "grpc_server_handled_total"
        return [sum_of_metric(page, name, **labels, grpc_code=code) for code in CODES]

    before = counted()
    ids = {"x_request_id": "of-connect-1"}
    answer = http.post(f"{TRANSLATION}Translate", {"texts": ["The old cat."]}, **ids)
    assert (answer.status, answer.headers["x-request-id"]) == (200, "of-connect-1")
    assert http.post(f"{TRANSLATION}Translate", {"texts": []}).status == 400
    wait_until(lambda: "request_id=of-connect-1" in caplog.text)
    assert counted() == [number + 1 for number in before]
    assert "The old cat" not in caplog.text


@pytest.mark.parametrize(
    ("content_type", "header"),
    [
        *((each, {"connect_timeout_ms": "30"}) for each in UNARY),
        *((each, {"grpc_timeout": "30m"}) for each in GRPC_WEB),
    ],
)
def test_a_deadline_ends_a_call(running, http, content_type, header):
    path, kind = f"{TRANSLATION}Translate", translation.TranslateResponse
    with running.held_engine():
        found = call(http, path, TRANSLATE, kind, content_type, **header)
    assert (found.code, found.messages) == ("deadline_exceeded", [])


def test_a_deadline_ends_a_stream_after_its_messages(running, http):
    path, kind = f"{TRANSLATION}StreamTranslate", translation.StreamTranslateResponse
    with running.held_engine():
        for content_type in STREAMS:
            found = call(http, path, STREAM, kind, content_type, connect_timeout_ms="30")
            assert (found.code, found.messages) == ("deadline_exceeded", [])


@pytest.mark.parametrize("method", ["Translate", "StreamTranslate"])
def test_a_call_ends_when_its_client_goes(running, caplog, method):
    caplog.set_level("INFO")
    request, content_type = (TRANSLATE, UNARY[0]) if method == "Translate" else (STREAM, STREAMS[0])
    with running.held_engine():
        with HttpClient(running.server.http_port) as http:
            headers = {"content-type": content_type, "x-request-id": f"gone-{method}"}
            body = written(request, content_type)
            http.connection.request("POST", f"{TRANSLATION}{method}", body, headers)
            wait_until(lambda: running.metric("attendant_queued_texts") > 0)
            http.connection.sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: f"request_id=gone-{method}" in caplog.text)
    [line] = [line for line in caplog.messages if f"request_id=gone-{method}" in line]
    assert f"method=attendant.v1.TranslationService/{method} " in line
    assert " code=CANCELLED " in line


ORIGIN = "https://app.example.com"
PERMISSIONS = {
    "translator": 'methods = ["Translate"]\n',
    "operator": 'methods = ["UnloadModel"]\n',
    "poor": "max_texts_per_minute = 1\n",
}


@pytest.fixture(scope="module")
def guarded(loop, settings, tmp_path_factory):
    """A server with keys, control of models, one call at a time and an allowed origin."""
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    made = {name: new_api_key(name) for name in PERMISSIONS}
    path.write_text("\n".join(made[name][1] + more for name, more in PERMISSIONS.items()))
    path.chmod(0o600)
    values = {"model_control": "on", "max_concurrent_calls": 1, "http_allowed_origins": (ORIGIN,)}
    with running_server(loop, settings(api_keys=str(path), **values)) as running:
        keys = {name: key for name, (key, _) in made.items()} | {"": ""}
        clients = {
            name: HttpClient(running.server.http_port, key=key) for name, key in keys.items()
        }
        yield running, clients
        for client in clients.values():
            client.connection.close()


@pytest.mark.parametrize(
    ("caller", "method", "code"),
    [
        ("translator", "Translate", "ok"),
        ("translator", "Score", "permission_denied"),
        ("operator", "Translate", "permission_denied"),
        ("", "Translate", "unauthenticated"),
    ],
)
def test_callers_have_their_permissions(guarded, caller, method, code):
    request, response = KINDS[method]
    message = TRANSLATE if method == "Translate" else request()
    for content_type in [UNARY[0], GRPC_WEB[1]]:
        client = guarded[1][caller]
        found = call(client, f"{TRANSLATION}{method}", message, response, content_type)
        assert found.code == code


def test_models_are_controlled_by_callers_with_permission_only(guarded, http):
    path = "/attendant.v1.ModelControlService/UnloadModel"
    assert http.post(path, {"model": "none/1"}).status == 404  # without keys there is no such path
    clients = guarded[1]
    assert clients["translator"].post(path, {"model": "none/1"}).json["code"] == "permission_denied"
    assert clients["operator"].post(path, {"model": "none/1"}).json["code"] == "not_found"


def test_refusals_say_when_to_try_again(guarded):
    running, clients = guarded
    request = json.dumps({"model": "tiny-en-de", "texts": ["The old cat."]}).encode()
    path, kind = f"{TRANSLATION}Translate", translation.TranslateResponse
    message = translation.TranslateRequest(model="tiny-en-de", texts=["The old cat."])
    with running.held_engine():
        waiting = clients["poor"].connection
        headers = {"content-type": UNARY[0], **clients["poor"]._headers}
        waiting.request("POST", path, request, headers)
        wait_until(lambda: running.metric("attendant_queued_texts", model=MODEL) == 1)
        answer = clients["translator"].post(path, request)
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        found = call(clients["translator"], path, message, kind, GRPC_WEB[1])
        for details in (answer.json["details"], found.details):
            assert "google.rpc.RetryInfo" in str(details)
    answered = waiting.getresponse()
    assert (answered.status, bool(answered.read())) == (200, True)
    assert clients["poor"].post(path, request).json["code"] == "resource_exhausted"


def test_pages_of_allowed_origins_may_call(guarded, http):
    client = guarded[1]["translator"]
    path = f"{TRANSLATION}Translate"
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,connect-protocol-version,content-type",
    }
    preflight = client.ask("OPTIONS", path, None, {"origin": ORIGIN, **asked})
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    allowed = preflight.headers["access-control-allow-headers"]
    assert allowed == asked["access-control-request-headers"]
    answer = client.post(path, {"model": "tiny-en-de", "texts": [TEXT]}, origin=ORIGIN)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
    other = {"origin": "https://evil.example.com"}
    assert client.ask("OPTIONS", path, None, other | asked).status == 400
    assert "access-control-allow-origin" not in client.post(path, {"texts": []}, **other).headers
    # Without the setting, there are no such headers at all.
    assert http.ask("OPTIONS", path, None, {"origin": ORIGIN, **asked}).status == 405
    answer = http.post(path, {"texts": ["The old cat."]}, origin=ORIGIN)
    assert not [name for name in answer.headers if name.startswith("access-control")]
