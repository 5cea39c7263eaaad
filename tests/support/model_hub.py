"""A model hub on a local port, which answers as the Hugging Face Hub does."""

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

NAME = "acme/Tiny-BERT"
"""The model of the tests."""
COMMIT = "5f9a1e8c" * 5
TOKEN = "hf_SecretOfTheTests"
SIGNATURE = "SecretSignature"
"""Part of the URLs that large files are redirected to."""
RESOLVE = re.compile(r"/(?P<name>.+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
LARGE = (".safetensors", ".bin", ".onnx")
"""Suffixes of files that come from another URL."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the hub got."""

    method: str
    file: str
    range: str | None
    token: str | None


@dataclass(slots=True)
class ModelHub:
    """The models of a hub, its behaviour, and what it was asked."""

    url: str = ""
    folders: dict[str, Path] = field(default_factory=dict)
    """Folders of models by name. Each has the branch ``main`` at `COMMIT`."""
    errors: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Status and headers of the answer to every request for a model, by its name."""
    cuts: dict[str, int] = field(default_factory=dict)
    """How many more times the connection is cut in the middle of a file, by its name."""
    requests: list[Request] = field(default_factory=list)

    def downloads(self) -> list[str]:
        """The files that were asked for, each once for each time."""
        return [request.file for request in self.requests if request.method == "GET"]


@contextmanager
def running_hub() -> Iterator[ModelHub]:
    """Run a hub without models."""
    hub = ModelHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: ModelHub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        found = RESOLVE.fullmatch(unquote(url.path))
        assert found is not None, self.path
        name, revision, file = found["name"], found["revision"], found["file"]
        wanted = self.headers.get("Range")
        self.hub.requests.append(
            Request(self.command, file, wanted, self.headers.get("Authorization"))
        )
        if name in self.hub.errors:
            self._send(*self.hub.errors[name])
        elif name not in self.hub.folders:
            self._send(404, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        elif not (path := self.hub.folders[name] / file).is_file():
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        elif path.suffix in LARGE and not url.query:
            self._redirect(path)
        else:
            self._send_file(path, wanted)

    def _redirect(self, path: Path) -> None:
        # Another host, so that the library does not take its answer for one of the hub.
        host = self.hub.url.replace("127.0.0.1", "localhost")
        location = f"{host}{self.path}?Signature={SIGNATURE}"
        content = path.read_bytes()
        headers = {
            "Location": location,
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
        }
        self._send(302, headers)

    def _send_file(self, path: Path, wanted: str | None) -> None:
        content = path.read_bytes()
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Content-Length": str(len(content) - start),
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        end = len(content)
        if self.command == "GET" and self.hub.cuts.get(path.name, 0) > 0:
            self.hub.cuts[path.name] -= 1
            end = start + (end - start) // 2
        self._send(206 if start else 200, headers, content[start:end])

    def _send(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
