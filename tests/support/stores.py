"""A real HTTP server of bundles for tests, which cuts connections and gives wrong answers."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


@dataclass
class BundleStore:
    """Serves a folder with listings and ranges; each fault hits one request of a path."""

    root: Path
    faults: dict[str, list[Any]] = field(default_factory=dict)
    """By path: a status, ``("cut", bytes)``, ``wrong``, ``more``, ``shifted`` or ``(301, URL)``."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """The path and the range of each request so far."""
    has_ranges: bool = True
    has_listings: bool = True
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/all"

    def ranges_of(self, path: str) -> list[str]:
        """The ranges of the requests for a file below the URL."""
        return [asked for requested, asked in self.requests if requested == path]

    def fault_of(self, path: str) -> Any:
        faults = self.faults.get(path, [])
        return faults.pop(0) if faults else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: BundleStore

    def do_GET(self) -> None:
        path, asked = unquote(self.path).removeprefix("/all/"), self.headers.get("Range", "")
        self.store.requests.append((path, asked))
        fault, target = self.store.fault_of(path), self.store.root / path
        if isinstance(fault, int):
            self._answer(fault, b"")
        elif isinstance(fault, tuple) and fault[0] == 301:
            self._answer(301, b"", Location=fault[1])
        elif target.is_dir():
            self._list(target)
        elif target.is_file():
            self._send(target.read_bytes(), asked if self.store.has_ranges else "", fault)
        else:
            self._answer(404, b"")

    def _list(self, folder: Path) -> None:
        if not self.store.has_listings:
            self._answer(403, b"")
            return
        links = "".join(f'<a href="{p.name}{"/" * p.is_dir()}">x</a>' for p in folder.iterdir())
        page = f'<a href="../">up</a><a href="/etc/passwd">x</a>{links}'
        self._answer(200, page.encode(), **{"Content-Type": "text/html"})

    def _send(self, content: bytes, asked: str, fault: Any) -> None:
        if fault == "wrong":
            content = bytes([content[0] ^ 1]) + content[1:]
        if fault == "more":
            content += b"more"
        stated = re.fullmatch(r"bytes=(\d+)-", asked)
        if stated is None:
            self._answer(200, content, fault)
            return
        begin = int(stated[1])
        named = begin + 1 if fault == "shifted" else begin
        whole = f"bytes {named}-{len(content) - 1}/{len(content)}"
        self._answer(206, content[begin:], fault, **{"Content-Range": whole})

    def _answer(self, status: int, content: bytes, fault: Any = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(fault, tuple):
            self.wfile.write(content[: fault[1]])
            self.wfile.flush()
            time.sleep(0.05)  # aiohttp drops what it has not handed on when a connection is cut
            self.close_connection = True
        else:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keep the output of the tests clean."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # connections stay open until their clients go


@contextmanager
def bundle_store(root: Path) -> Iterator[BundleStore]:
    """Serve a folder below ``/all`` until the block ends."""
    store = BundleStore(root)
    handler = type("Handler", (_Handler,), {"store": store})
    with _Server(("127.0.0.1", 0), handler) as server:
        store.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join()
