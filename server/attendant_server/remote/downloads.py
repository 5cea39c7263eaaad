"""Downloads files with several attempts, and resumes them where they were cut."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from attendant_server.hashed_copies import hash_of
from attendant_server.remote.remote_files import (
    RANGE_NOT_SATISFIABLE,
    RemoteError,
    RemoteFile,
    RemoteFiles,
)

NUM_ATTEMPTS = 5
"""Attempts in a row that bring nothing."""
FIRST_DELAY_SECONDS = 0.5
"""Before the second attempt; each further delay is twice as long."""
READ_BYTES = 256 * 1024

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class DownloadObserver(Protocol):
    """Counts what is downloaded. Any thread."""

    def on_downloaded_bytes(self, num_bytes: int) -> None:
        """Bytes have arrived."""

    def on_bundle_download(self, result: str) -> None:
        """A download was ``completed``, ``interrupted`` and tried again, or has ``failed``."""


class Downloader:
    """Downloads the files below one URL."""

    def __init__(
        self, files: RemoteFiles, observer: DownloadObserver, stopping: threading.Event
    ) -> None:
        """No attempt begins once ``stopping`` is set."""
        self._files, self._observer, self._stopping = files, observer, stopping

    def names(self, *folder: str) -> list[str]:
        """What is in a folder. Raises RemoteError."""
        return self._attempted("/".join(folder), lambda: self._files.names(*folder))

    def content(self, path: str, max_bytes: int) -> bytes:
        """The content of a small file. Raises RemoteError, also for more than ``max_bytes``."""

        def read() -> bytes:
            with self._files.opened(path) as file:
                parts = bytearray()
                while part := file.read(READ_BYTES):
                    self._observer.on_downloaded_bytes(len(part))
                    parts += part
                    if len(parts) > max_bytes:
                        raise RemoteError(f"has more than {max_bytes} bytes", is_final=True)
                return bytes(parts)

        return self._attempted(path, read)

    def save(self, path: str, target: Path, size_bytes: int, sha256: str) -> None:
        """Complete the file ``target``, which may hold its beginning, and verify it.

        A wrong file is downloaded once more from its beginning. After a cut, ``target`` keeps what
        has arrived. Raises RemoteError, and OSError if the file cannot be written.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            had_bytes = _size_of(target) > 0
            self._attempted(path, lambda: self._extend(path, target, size_bytes), target)
            if _size_of(target) == size_bytes and hash_of(target, size_bytes, None) == sha256:
                return
            target.unlink(missing_ok=True)
            logger.warning("event=download_wrong file=%s resumed=%s", path, had_bytes)
        raise RemoteError("does not have the size and SHA-256 of the manifest", is_final=True)

    def _extend(self, path: str, target: Path, size_bytes: int) -> None:
        """Append what is missing of a file, and at most one byte more than it should have."""
        have = _size_of(target)
        if have >= size_bytes and target.exists():
            return
        try:
            with self._files.opened(path, have) as file, target.open("ab") as written:
                if file.offset < have:
                    logger.info("event=download_restarted file=%s", path)
                    written.truncate(0)
                self._append(file, written.write, size_bytes - file.offset)
                written.flush()
                os.fsync(written.fileno())
        except RemoteError as error:
            if error.status == RANGE_NOT_SATISFIABLE and have:
                target.unlink()
                raise RemoteError(str(error)) from None
            raise

    def _append(self, file: RemoteFile, write: Callable[[bytes], int], num_bytes: int) -> None:
        while num_bytes >= 0:
            if self._stopping.is_set():
                raise RemoteError("the server is stopping", is_final=True)
            part = file.read(min(READ_BYTES, num_bytes + 1))
            if not part:
                break
            write(part)
            num_bytes -= len(part)
            self._observer.on_downloaded_bytes(len(part))
        if num_bytes > 0:
            raise RemoteError(f"ends {num_bytes} bytes too early")

    def _attempted(
        self, path: str, attempt: Callable[[], Result], target: Path | None = None
    ) -> Result:
        """The result of an attempt; those that made ``target`` longer are not counted."""
        num_failed = 0
        while True:
            had = _size_of(target)
            try:
                return attempt()
            except RemoteError as error:
                num_failed = 1 if _size_of(target) > had else num_failed + 1
                if error.is_final or num_failed >= NUM_ATTEMPTS:
                    raise
                self._observer.on_bundle_download("interrupted")
                logger.warning("event=download_interrupted file=%s %s", path or "/", error)
            if self._stopping.wait(FIRST_DELAY_SECONDS * 2 ** (num_failed - 1)):
                raise RemoteError("the server is stopping", is_final=True)


def _size_of(path: Path | None) -> int:
    return path.stat().st_size if path is not None and path.exists() else 0
