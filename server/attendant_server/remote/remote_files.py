"""Reads files below a URL through fsspec. The only module that knows fsspec and its protocols.

Messages of errors hold no URLs: the address to which a store redirects may be a credential.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin

from fsspec.config import conf
from fsspec.core import url_to_fs

HTTP = ("http", "https")
BLOCK_BYTES = 8 * 1024 * 1024
"""Bytes that are asked for at a time of a store that is read in ranges, such as S3."""
SILENCE_SECONDS = 30.0
"""Time after which a connection that brings nothing is given up."""
RETRIED_STATUSES = (408, 425, 429)
RANGE_NOT_SATISFIABLE = 416


class RemoteError(Exception):
    """A remote file or folder cannot be read."""

    def __init__(self, message: str, is_final: bool = False, status: int = 0) -> None:
        """``is_final``: another attempt would fail as well; ``status`` is that of HTTP, or 0."""
        super().__init__(message)
        self.is_final, self.status = is_final, status


class RemoteNotFound(RemoteError):
    """There is no such file or folder, while the remote side answers."""


class RemoteFile:
    """An open file, which is read from its ``offset`` on."""

    def __init__(self, file: Any, offset: int) -> None:
        self._file, self.offset = file, offset

    def read(self, num_bytes: int) -> bytes:
        """At most ``num_bytes``; nothing at the end. Raises RemoteError."""
        with _own_errors():
            return bytes(self._file.read(num_bytes))


class RemoteFiles:
    """The files below one URL. Nothing outside it is read.

    Credentials are those that the library of the protocol finds in its variables and files.
    """

    def __init__(self, url: str) -> None:
        """Raises ImportError if the library of the protocol is missing, ValueError if unknown."""
        protocol = url.partition("://")[0]
        self._is_http = protocol in HTTP
        options = _http_options(protocol) if self._is_http else {}
        self._files, root = url_to_fs(url, skip_instance_cache=True, **options)
        self._root = str(root).rstrip("/")

    def names(self, *folder: str) -> list[str]:
        """What is in a folder; the parts of its path are names. Raises RemoteError.

        Of HTTP, the links of the page are the names.
        """
        path = "/".join((self._root, *folder)) + "/"
        with _own_errors():
            self._files.invalidate_cache()
            found = self._files.ls(path, detail=False)
        below = (name.removeprefix(path).rstrip("/") for name in found if name.startswith(path))
        return sorted({name for name in below if name and "/" not in name})

    @contextmanager
    def opened(self, path: str, offset: int = 0) -> Iterator[RemoteFile]:
        """A file from ``offset`` on, or from 0 if ranges are not supported. Raises RemoteError."""
        with _own_errors():
            opened = self._stream(path, offset) if self._is_http else self._seek(path, offset)
        try:
            yield opened
        finally:
            opened._file.close()

    def _stream(self, path: str, offset: int) -> RemoteFile:
        headers = {**self._files.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        # A size spares the request for it, and a block of 0 bytes makes it one stream.
        name = f"{self._root}/{path}"
        file = self._files.open(name, "rb", block_size=0, size=1, headers=headers)
        if file.r.status != 206:
            return RemoteFile(file, 0)
        stated = re.match(r"bytes (\d+)-", file.r.headers.get("Content-Range", ""))
        if stated is None or int(stated[1]) != offset:
            file.close()
            raise RemoteError("the answer has another range than was asked for")
        return RemoteFile(file, offset)

    def _seek(self, path: str, offset: int) -> RemoteFile:
        name = f"{self._root}/{path}"
        file = self._files.open(name, "rb", block_size=BLOCK_BYTES, cache_type="readahead")
        file.seek(offset)
        return RemoteFile(file, offset)


def _http_options(protocol: str) -> Mapping[str, Any]:
    import aiohttp

    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(refuse_downgrades)
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS
    )
    own = {"trace_configs": [tracing], "timeout": timeout, "trust_env": True}
    configured = conf.get(protocol, {}).get("client_kwargs", {})
    return {"client_kwargs": {**configured, **own}, "simple_links": False}


async def refuse_downgrades(_: Any, __: Any, redirect: Any) -> None:
    """Raise RemoteError at a redirect from https to another protocol."""
    target = urljoin(str(redirect.url), redirect.response.headers.get("Location", ""))
    if redirect.url.scheme == "https" and not target.startswith("https://"):
        raise RemoteError("redirects from https to another protocol", is_final=True)


@contextmanager
def _own_errors() -> Iterator[None]:
    """Turn errors of all libraries into RemoteError, without their messages."""
    try:
        yield
    except RemoteError:
        raise
    except FileNotFoundError:
        raise RemoteNotFound("does not exist", is_final=True) from None
    except Exception as error:  # each library has its own classes
        status = getattr(error, "status", 0)
        if isinstance(status, int) and status:
            is_final = 400 <= status < 500 and status not in RETRIED_STATUSES
            raise RemoteError(f"the answer has status {status}", is_final, status) from None
        is_final = isinstance(error, PermissionError)
        raise RemoteError(f"cannot be read: {type(error).__name__}", is_final) from None
