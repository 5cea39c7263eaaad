"""The registry of Firefox Translations and its files on a local port, in Mozilla's shape."""

import gzip
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REGISTRY = "db/models.json"
METRICS = {"flores200-plus": {"bleu": 41.2, "chrf": 66.1, "comet22": 0.87}}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that the server got."""

    path: str
    range: str | None


@dataclass(slots=True)
class Files:
    """What a server of files sends, its behaviour, and what it was asked."""

    url: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)
    """By the path of the URL, without the slash at its beginning."""
    models: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Entries of the registry by their pair of languages."""
    cuts: dict[str, int] = field(default_factory=dict)
    """How many more times the connection is cut in the middle of a file."""
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Status and headers of the answer to every request for a path."""
    has_ranges: bool = True
    """Whether the server can send the rest of a file."""
    requests: list[Request] = field(default_factory=list)

    @property
    def registry_url(self) -> str:
        """The URL of the registry."""
        return f"{self.url}/{REGISTRY}"

    def registry(self) -> bytes:
        """The content of the registry."""
        fields = {"generated": "2026-10-09T00:54:11Z", "baseUrl": self.url, "models": self.models}
        return json.dumps(fields, indent=2).encode()

    def add_model(
        self,
        folder: Path,
        pair: str = "en-fr",
        architecture: str = "tiny",
        status: str | None = "Release",
    ) -> dict[str, Any]:
        """Add the files of a folder and an entry, which is returned."""
        prefix = f"models/{pair}/spring-2024_{architecture}/exported"
        files: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.iterdir()):
            content, name = path.read_bytes(), f"{prefix}/{path.name}.gz"
            self.contents[name] = gzip.compress(content)
            files[_role(path.name)] = {"path": name}
            if path.name.startswith("model"):
                files["model"] |= {
                    "uncompressedSize": len(content),
                    "uncompressedHash": hashlib.sha256(content).hexdigest(),
                }
        source, _, target = pair.partition("-")
        entry = {
            "architecture": architecture,
            "releaseStatus": status,
            "sourceLanguage": source,
            "targetLanguage": target,
            "files": files,
            "modelStatistics": {"parameters": 1, "encoderParameters": 1, "decoderParameters": 0},
            "metrics": METRICS,
        }
        self.models.setdefault(pair, []).append(entry)
        return entry

    def downloads(self) -> list[str]:
        """The names of the files that were asked for, without the registry."""
        return [r.path.rpartition("/")[2] for r in self.requests if r.path != REGISTRY]


def _role(name: str) -> str:
    roles = {"model": "model", "lex": "lexicalShortlist", "vocab": "vocab"}
    roles |= {"srcvocab": "srcVocab", "trgvocab": "trgVocab"}
    return roles[name.partition(".")[0]]


@contextmanager
def serving_files() -> Iterator[Files]:
    """Run a server without files."""
    files = Files()
    handler = type("Handler", (_Handler,), {"files": files})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    files.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    files: Files

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path, wanted = self.path.removeprefix("/"), self.headers.get("Range")
        self.files.requests.append(Request(path, wanted))
        content = self.files.contents.get(path)
        if path == REGISTRY and content is None:
            content = self.files.registry()
        if path in self.files.answers:
            self._send(*self.files.answers[path], b"")
        elif content is None:
            self._send(404, {}, b"")
        else:
            self._send_file(path, content, wanted if self.files.has_ranges else None)

    def _send_file(self, path: str, content: bytes, wanted: str | None) -> None:
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and start >= len(content):
            self._send(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        headers = {"Content-Length": str(len(content) - start)}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        end = len(content)
        if self.files.cuts.get(path, 0) > 0:
            self.files.cuts[path] -= 1
            end = start + (end - start) // 2
        self._send(206 if wanted else 200, headers, content[start:end])

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", "0")
        self.end_headers()
        with suppress(ConnectionError):  # The client may have enough.
            self.wfile.write(content)
