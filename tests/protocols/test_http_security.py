"""Credentials, permissions, quotas and TLS of the port of HTTP."""

import ssl
from typing import Any

import pytest
from attendant_server.security import security, watching
from attendant_server.security.api_keys import new_api_key

from tests.support.credentials import Authority
from tests.support.http import HttpClient
from tests.support.serving import running_server, wait_until

PERMISSIONS = {
    "embedder": 'methods = ["Embed"]\n',
    "translator": 'methods = ["Translate"]\n',
    "streamer": 'methods = ["StreamGenerate"]\n',
    "one-model": 'models = ["tiny-bert"]\n',
    "poor": "max_texts_per_minute = 2\n",
    "any": "",
}
EMBED = ("/v1/embeddings", {"input": "the old king", "model": "tiny-bert"})
CLASSIFY = ("/embed", {"inputs": "the old king"})
TRANSLATE = ("/translate", {"q": "The old cat.", "source": "en", "target": "de"})
COMPLETE = ("/v1/completions", {"prompt": "the", "max_tokens": 1})
STREAM = ("/v1/completions", {"prompt": "the", "max_tokens": 1, "stream": True})


@pytest.fixture(scope="module")
def served(loop, settings, tmp_path_factory):
    """A server with keys, and clients with each of them and without any."""
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    made = {name: new_api_key(name) for name in PERMISSIONS}
    path.write_text("\n".join(made[name][1] + more for name, more in PERMISSIONS.items()))
    path.chmod(0o600)
    keys = {name: key for name, (key, _) in made.items()} | {"": ""}
    with running_server(loop, settings(api_keys=str(path))) as running:
        port = running.server.http_port
        clients = {name: HttpClient(port, key=key) for name, key in keys.items()}
        yield keys, clients
        for client in clients.values():
            client.connection.close()


@pytest.mark.parametrize(
    ("caller", "call", "status"),
    [
        ("embedder", EMBED, 200),
        ("embedder", TRANSLATE, 403),
        ("embedder", STREAM, 403),
        ("translator", TRANSLATE, 200),
        ("translator", EMBED, 403),
        ("streamer", STREAM, 200),
        ("streamer", COMPLETE, 403),
        ("one-model", EMBED, 200),
        ("one-model", TRANSLATE, 404),
        ("any", COMPLETE, 200),
        ("", EMBED, 401),
        ("", CLASSIFY, 401),
        ("", TRANSLATE, 401),
    ],
)  # fmt: skip
def test_a_caller_has_the_permissions_of_the_methods_that_do_the_work(served, caller, call, status):
    answer = served[1][caller].post(*call)
    assert answer.status == status
    assert ("www-authenticate" in answer.headers) is (status == 401)


def test_lists_show_permitted_models_only(served):
    data = served[1]["one-model"].get("/v1/models").json["data"]
    assert [model["id"] for model in data] == ["tiny-bert"]
    assert served[1]["one-model"].get("/v1/models/tiny-lm").status == 403
    assert served[1]["embedder"].get("/v1/models").status == 403


def test_health_and_the_description_need_no_credentials(served):
    assert served[1][""].get("/health").status == 200
    document = served[1][""].get("/openapi.json").json
    assert document["paths"]["/v1/embeddings"]["post"]["security"] == [{"bearer": []}]


def test_a_key_in_the_body_counts_for_libretranslate_only(served):
    keys, clients = served
    path, body = TRANSLATE
    stranger = clients[""]
    assert stranger.post(path, body | {"api_key": keys["translator"]}).status == 200
    assert stranger.post_form(path, body | {"api_key": keys["translator"]}).status == 200
    assert stranger.post(path, body | {"api_key": keys["embedder"]}).status == 403
    assert stranger.post(path, body | {"api_key": "wrong"}).status == 401
    large = stranger.post(path, body | {"q": ["a" * 2000] * 256, "api_key": keys["any"]})
    assert large.status == 413
    # The header counts where there is one.
    assert clients["embedder"].post(path, body | {"api_key": keys["translator"]}).status == 403
    assert stranger.post(EMBED[0], EMBED[1] | {"api_key": keys["any"]}).status == 401


def test_a_quota_says_when_to_try_again(served):
    answers = [served[1]["poor"].post(*EMBED) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert 0 < int(answers[2].headers["retry-after"]) <= 60


def test_no_answer_and_no_log_line_has_a_key(served, caplog):
    keys, clients = served
    answer = clients[""].post(TRANSLATE[0], TRANSLATE[1] | {"api_key": "attendant_secret"})
    assert answer.status == 401
    assert "attendant_secret" not in caplog.text + answer.content.decode()


def test_new_connections_get_the_newest_certificate(start, tmp_path, monkeypatch):
    monkeypatch.setattr(security, "watch", lambda files: watching.watch(files, 0.01))
    authority = Authority(tmp_path)
    files = authority.issue("server")
    server = start(tls_cert=str(files.cert), tls_key=str(files.key), metrics_tls="never")
    context = ssl.create_default_context(cafile=str(authority.file))

    def serial():
        with HttpClient(server.server.http_port, context) as client:
            assert client.post(*EMBED).status == 200
            connection: Any = client.connection
            return connection.sock.getpeercert()["serialNumber"]

    first = serial()
    (tmp_path / "new").mkdir()
    new = authority.issue("server", folder=tmp_path / "new")
    new.key.replace(files.key)
    new.cert.replace(files.cert)
    wait_until(lambda: serial() != first)


def test_callers_with_certificates_are_named_by_them(start, tmp_path, caplog):
    caplog.set_level("INFO")
    authority = Authority(tmp_path)
    files, own = authority.issue("server"), authority.issue("worker-3")
    server = start(
        tls_cert=str(files.cert),
        tls_key=str(files.key),
        tls_client_ca=str(authority.file),
        metrics_tls="never",
    )
    context = ssl.create_default_context(cafile=str(authority.file))
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        HttpClient(server.server.http_port, context) as client,
    ):
        client.post(*EMBED)
    context.load_cert_chain(own.cert, own.key)
    with HttpClient(server.server.http_port, context) as client:
        assert client.post(*EMBED).status == 200
    wait_until(lambda: "cert:worker-3" in caplog.text)
