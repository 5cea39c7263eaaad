"""Keys of tokens: files that are refused, and the key set that a provider publishes at a URL."""

import asyncio
import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from attendant_client import UnavailableError
from attendant_server.security import key_set_url
from attendant_server.security.key_set_url import KeySetUrl, fetch_bounded
from attendant_server.security.token_keys import TokenKeys, parse_key_set, read_public_keys
from attendant_server.security.watching import FileFault

from tests.support.credentials import Signer, is_known, jwt_settings, key_set, private_pem_of
from tests.support.serving import metrics_page, sum_of_metric

SIGNER, OTHER = Signer("first"), Signer("second")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a JWK Set"),
        (b"[" * 100_000, "is not a JWK Set"),
        (b'{"keys": 1}', "is not a JWK Set"),
        (b'{"keys": []}', "has no public RSA, EC or OKP key"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}, 1, {"kty": "RSA"}]}', "has no public RSA"),
        (private_pem_of(SIGNER.key), "holds a private key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "cannot be read"),
        (b"-----BEGIN PUBLIC KEY-----", "must have 1 to 32 keys"),
    ],
)
def test_a_file_without_usable_keys_is_refused(tmp_path: Path, content: bytes, problem: str):
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(FileFault, match=problem):
        read_public_keys(path)


def test_unusable_keys_of_a_set_are_left_out():
    entry = SIGNER.jwk
    for change in (
        {"use": "enc"}, {"key_ops": ["encrypt"]}, {"key_ops": 1}, {"d": "AAAA"}, {"alg": "none"}
    ):  # fmt: skip
        unusable = entry | change
        with pytest.raises(ValueError, match="has no public"):
            parse_key_set(json.dumps({"keys": [unusable]}).encode())
    keys = parse_key_set(json.dumps({"keys": [entry | {"alg": "PS256"}]}).encode())
    assert keys.candidates("first", "PS256")
    assert not keys.candidates("first", "RS256")


class Quiet(HTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not print the errors of connections that end early."""


class Provider:
    """An identity provider with a JWK Set at a URL."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.content, self.status, self.num_fetches = key_set(SIGNER), 200, 0
        self.drips = False
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.num_fetches += 1
                self.send_response(provider.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                with suppress(OSError):
                    while provider.drips:
                        self.wfile.write(b" ")
                        time.sleep(0.01)
                self.wfile.write(provider.content)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/keys"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.drips = False
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


def test_a_new_key_of_the_provider_is_fetched_when_a_token_needs_it(
    start, client_of, provider, monkeypatch
):
    monkeypatch.setattr(key_set_url, "MIN_SECONDS", 0.0)
    server = start(**jwt_settings(jwt_keys=provider.url))
    assert is_known(client_of(server, token=SIGNER.token()))
    provider.content = key_set(OTHER)
    assert is_known(client_of(server, token=OTHER.token()))
    assert not is_known(client_of(server, token=SIGNER.token()))  # it was withdrawn


def test_the_former_keys_stay_while_the_provider_is_out(
    start, client_of, provider, monkeypatch, caplog
):
    monkeypatch.setattr(key_set_url, "MIN_SECONDS", 0.0)
    server = start(**jwt_settings(jwt_keys=provider.url))
    assert is_known(client_of(server, token=SIGNER.token()))
    provider.status = 500
    assert not is_known(client_of(server, token=OTHER.token()))
    assert "event=token_keys_not_fetched the key set's URL answers with status 500" in caplog.text
    assert is_known(client_of(server, token=SIGNER.token(jti="another")))
    provider.status, provider.content = 200, b"<html>"
    assert not is_known(client_of(server, token=OTHER.token()))
    assert is_known(client_of(server, token=SIGNER.token(jti="a third")))


def test_unknown_key_ids_cause_no_flood_of_fetches(start, client_of, provider, monkeypatch):
    monkeypatch.setattr(key_set_url, "MIN_SECONDS", 600.0)
    server = start(**jwt_settings(jwt_keys=provider.url))
    assert is_known(client_of(server, token=SIGNER.token()))
    for _ in range(5):
        assert not is_known(client_of(server, token=OTHER.token()))
    assert provider.num_fetches == 1


def test_calls_are_unavailable_until_keys_are_loaded(start, client_of, provider):
    provider.status = 503
    server = start(**jwt_settings(jwt_keys=provider.url))
    with pytest.raises(UnavailableError, match="the keys of tokens are not loaded"):
        client_of(server, token=SIGNER.token()).models()
    page = metrics_page(server)
    name = "attendant_authentication_total"
    assert sum_of_metric(page, name, result="keys_unavailable") == 1


def test_a_fetch_follows_no_redirect_and_reads_no_large_answer(provider):
    provider.status = 302
    with pytest.raises(OSError, match="302"):
        fetch_bounded(provider.url)
    assert provider.num_fetches == 1
    provider.status, provider.content = 200, bytes(300_000)
    with pytest.raises(OSError, match="too large"):
        fetch_bounded(provider.url)


def test_a_fetch_ends_although_the_provider_sends_on(provider, monkeypatch):
    monkeypatch.setattr(key_set_url, "FETCH_SECONDS", 0.2)
    provider.drips = True
    with pytest.raises(TimeoutError, match="more than 0.2 seconds"):
        fetch_bounded(provider.url)


def test_a_fetch_from_this_machine_uses_no_proxy(provider, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert fetch_bounded(provider.url) == provider.content


def test_an_answer_that_is_not_http_is_not_logged():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"greeting\r\nevent=forged\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OSError, match="gives no HTTP answer: BadStatusLine$"):
            fetch_bounded(f"http://127.0.0.1:{server.getsockname()[1]}/keys")
        thread.join()


def test_a_fetch_that_hangs_does_not_prevent_later_ones(monkeypatch, caplog):
    monkeypatch.setattr(key_set_url, "FETCH_SECONDS", 0.05)
    monkeypatch.setattr(key_set_url, "MIN_SECONDS", 0.0)
    numbers, released = itertools.count(), threading.Event()

    def fetch(url: str) -> bytes:
        if next(numbers) == 0:
            released.wait()
        return key_set(SIGNER)

    async def refresh_until_fetched() -> None:
        source = KeySetUrl("https://identity.example/keys", fetch)
        while not source.value:
            await source.refresh_keys()

    try:
        asyncio.run(asyncio.wait_for(refresh_until_fetched(), timeout=60))
    finally:
        released.set()
    assert "event=token_keys_not_fetched TimeoutError" in caplog.text


def test_a_provider_with_a_private_authority_is_trusted_through_a_variable(authority, monkeypatch):
    files = authority.issue("provider")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    provider = Provider(context)
    try:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch_bounded(provider.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert fetch_bounded(provider.url) == provider.content
    finally:
        provider.close()


def test_calls_that_need_a_fetch_at_the_same_time_share_it():
    fetched = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        return key_set(SIGNER)

    async def refresh_at_once() -> TokenKeys:
        source = KeySetUrl("https://identity.example/keys", fetch, clock=lambda: 100.0)
        await asyncio.gather(*(source.refresh_keys() for _ in range(20)))
        return source.value

    assert asyncio.run(refresh_at_once())
    assert len(fetched) == 1
