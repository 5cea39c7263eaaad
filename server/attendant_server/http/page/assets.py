"""The files of the page. They hold no data of the server, so that anybody may load them."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files

from attendant_server.errors import AttendantError
from attendant_server.foreign_methods import HTTP
from attendant_server.http.exchanges import Call, Response
from attendant_server.http.statuses import Failure
from attendant_server.records import Method

INDEX = "index.html"
FOLDER = "/page/"
CONTENT_TYPES = {
    "css": b"text/css; charset=utf-8",
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing but the page's own files and calls to its own server; no script in the document, no
script from a string, and no other page around it."""
HEADERS = (
    # Asked for again at each use: a file changes with the server, and its name does not.
    (b"cache-control", b"no-cache"),
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
METHOD = Method(HTTP, "Page", "unary")


@dataclass(frozen=True)
class Asset:
    """A route that answers with one file of the page, and needs no credentials."""

    path: str
    content: bytes
    content_type: bytes
    etag: str
    method: Method = METHOD
    has_key: bool = False

    @property
    def statuses(self) -> Mapping[str | type[AttendantError], int]:
        """None of its own."""
        return {}

    def key(self, call: Call, body: bytes) -> str:
        """Never called: it needs no credentials."""
        raise NotImplementedError

    def begin(self, call: Call) -> None:
        """Nothing: no header is wrong."""

    async def answer(self, call: Call, body: bytes) -> Response:
        """The file, or that the caller has it already."""
        headers = [(b"etag", self.etag.encode()), *HEADERS]
        if self.etag in _etags(call.headers.get("if-none-match", "")):
            return Response(b"", self.content_type, HTTPStatus.NOT_MODIFIED, headers)
        return Response(self.content, self.content_type, headers=headers)

    def failed(self, failure: Failure) -> Response:
        """The answer to a call that has failed."""
        return Response(failure.message.encode(), b"text/plain; charset=utf-8", failure.status)


def assets() -> Iterator[Asset]:
    """All files of the page, read into memory: no path of a request reaches the file system."""
    for file in sorted(files(__package__).joinpath("files").iterdir(), key=lambda each: each.name):
        content = file.read_bytes()
        path = "/" if file.name == INDEX else FOLDER + file.name
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        yield Asset(path, content, CONTENT_TYPES[file.name.rpartition(".")[2]], etag)


def _etags(header: str) -> set[str]:
    return {each.strip().removeprefix("W/") for each in header.split(",")}
