"""Downloads of public files over HTTPS, which go on where an earlier one was cut."""

import errno
import gzip
import http.client
import ssl
import time
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from tqdm import tqdm

from attendant_export import __version__

TIMEOUT_SECONDS = 30
WAITS = (1, 2, 4)
"""Seconds between attempts."""
CHUNK_BYTES = 2**18
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
GZIP = b"\x1f\x8b"
REQUEST_TIMEOUT, RANGE_NOT_SATISFIABLE, TOO_MANY_REQUESTS = 408, 416, 429
PASSING = (REQUEST_TIMEOUT, RANGE_NOT_SATISFIABLE, TOO_MANY_REQUESTS)
"""Statuses after which another attempt may succeed, beside those of the server's own errors."""
PARTIAL_CONTENT = 206
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class DownloadError(Exception):
    """A file cannot be downloaded or unpacked. The message is the reason alone."""

    def __init__(self, reason: str, is_temporary: bool = False) -> None:
        super().__init__(reason)
        self.is_temporary = is_temporary
        """Whether another attempt may succeed."""


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        try:
            _check_url(newurl, may_be_local=urlsplit(req.full_url).hostname in THIS_MACHINE)
        except DownloadError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_CheckedRedirects)


def download(
    url: str, part: Path, max_bytes: int, description: str, waits: Sequence[int] = WAITS
) -> None:
    """Download a file to ``part``, which may already have its first bytes.

    Shows a bar on a terminal. Raises DownloadError; after a temporary one, ``part`` keeps the bytes
    that have arrived, otherwise it is removed. The caller must verify the content.
    """
    _check_url(url)
    for wait in (*waits, None):
        try:
            _continue(url, part, max_bytes, description)
            break
        except (OSError, http.client.HTTPException, DownloadError) as error:
            failure = _failure(error)
            if not failure.is_temporary:
                part.unlink(missing_ok=True)
            if not failure.is_temporary or wait is None:
                raise failure from error
            time.sleep(wait)


def unpack(packed: Path, target: Path, max_bytes: int) -> None:
    """Write ``packed``, decompressed if it is a gzip file, to ``target``; raises DownloadError."""
    try:
        with packed.open("rb") as raw:
            is_packed = raw.read(len(GZIP)) == GZIP
            raw.seek(0)
            with target.open("wb") as out:
                for chunk in _chunks(gzip.GzipFile(fileobj=raw) if is_packed else raw):
                    out.write(chunk)
                    _check_size(out.tell(), max_bytes)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DownloadError(f"the gzip file is damaged: {error}") from error
    except OSError as error:
        raise _failure(error) from error


def _check_url(url: str, may_be_local: bool = True) -> None:
    """Raise DownloadError for a URL that is neither HTTPS nor, on this machine, HTTP.

    Without ``may_be_local``, also for HTTPS of this machine.
    """
    parts = urlsplit(url)
    is_local = parts.hostname in THIS_MACHINE
    if parts.scheme != "https" and (parts.scheme, is_local) != ("http", True):
        raise DownloadError(f"{url} is not an HTTPS URL, nor an HTTP URL of this machine")
    if is_local and not may_be_local:
        raise DownloadError(f"{url} is a URL of this machine, to which another machine redirects")


def _continue(url: str, part: Path, max_bytes: int, description: str) -> None:
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"attendant-export/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)
    try:
        response = _opener.open(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE:  # The part is complete already, or too long.
            part.unlink(missing_ok=True)
        raise
    with response:
        is_rest = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        start = start if response.status == PARTIAL_CONTENT and is_rest else 0
        total = None if response.length is None else start + response.length
        _save(response, part, start, total, max_bytes, description)
    size = part.stat().st_size
    if total is not None and size < total:
        raise ConnectionError(f"the connection ended after {size} of {total} bytes")


def _save(
    response: Any, part: Path, start: int, total: int | None, max_bytes: int, description: str
) -> None:
    bar: tqdm[Any] = tqdm(
        desc=description, total=total, initial=start, unit="B", unit_scale=True, leave=False,
        disable=None,
    )  # fmt: skip
    with part.open("ab" if start else "wb") as out, bar:
        for chunk in _chunks(response):
            out.write(chunk)
            bar.update(len(chunk))
            _check_size(out.tell(), max_bytes)


def _chunks(content: Any) -> Iterator[bytes]:
    while chunk := content.read(CHUNK_BYTES):
        yield chunk


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise DownloadError(f"the file is larger than {max_bytes:,} bytes")


def _failure(error: Exception) -> DownloadError:
    """Raises errors of files, which name their file."""
    if isinstance(error, DownloadError):
        return error
    if isinstance(error, HTTPError):
        error.close()
        return DownloadError(f"status {error.code}", error.code >= 500 or error.code in PASSING)
    if isinstance(error, URLError):
        reason = error.reason
        text = reason.strerror if isinstance(reason, OSError) else None
        return DownloadError(
            text or str(reason), not isinstance(reason, ssl.SSLCertVerificationError)
        )
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return DownloadError("no space is left on the disk")
    if isinstance(error, OSError) and error.filename is not None:
        raise error
    return DownloadError(str(error) or type(error).__name__, is_temporary=True)
