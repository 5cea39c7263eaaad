"""A client of HTTP for tests, of the standard library."""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

TIMEOUT_SECONDS = 60.0
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Answer:
    """The answer to one request."""

    status: int
    headers: dict[str, str]
    """By names in small letters."""
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def events(self) -> list[str]:
        """The data of server-sent events."""
        parts = self.content.decode().split("\n\n")
        assert parts.pop() == ""
        assert all(part.startswith("data: ") for part in parts)
        return [part.removeprefix("data: ") for part in parts]


class HttpClient:
    """Sends requests to a server of this machine, one after the other on one connection."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, key: str = "") -> None:
        self.connection = (
            http.client.HTTPConnection("127.0.0.1", port, TIMEOUT_SECONDS)
            if tls is None
            else http.client.HTTPSConnection(
                "localhost", port, timeout=TIMEOUT_SECONDS, context=tls
            )
        )
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, content: Any, **headers: str) -> Answer:
        """Post JSON, or bytes as they are; ``_`` in the names of headers stands for ``-``."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.ask("POST", path, body, {"content-type": JSON, **headers})

    def post_form(self, path: str, fields: Any) -> Answer:
        return self.ask("POST", path, urlencode(fields, doseq=True), {"content-type": FORM})

    def ask(self, verb: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(verb, path, body, self._headers | named)
        response = self.connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())


def raw_connection(port: int) -> socket.socket:
    """A connection for bytes that no client library would send."""
    return socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)


def received(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)
