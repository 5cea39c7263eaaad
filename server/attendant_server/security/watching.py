"""Values that are read from files, and read again when a file changes, without a restart."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from attendant_server.system.blocking_work import run_blocking

PERIOD_SECONDS = 1.0
MAX_FILE_BYTES = 1024 * 1024
"""Far above the size of real files; a wrong path, such as that of a model, is refused early."""

logger = logging.getLogger(__name__)
Value = TypeVar("Value")
Fingerprint = tuple[int, ...]


class FileFault(Exception):
    """A file cannot be used. The message names the file and never holds its content."""


class WatchedFiles(Generic[Value]):
    """A value of some files. A reader may keep `value`: it is replaced and never changed.

    A file may be replaced in place, by renaming, or through a symbolic link above it, as
    Kubernetes does.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], Value]) -> None:
        """Raises FileFault, as ``read`` may."""
        self._paths, self._read = paths, read
        # Taken before reading: a change in between is seen by the next check.
        self._seen = self._changing = self._fingerprint()
        self.value = self._newest()

    def refresh(self) -> None:
        """Read the files again if one has changed and nothing has changed since the last refresh.

        A half-written file may look like a whole one. Keeps the value if the files are faulty.
        """
        found, before = self._fingerprint(), self._changing
        self._changing = found
        if found == self._seen or found != before:
            return
        self._seen = found
        names = ",".join(map(str, self._paths))
        try:
            self.value = self._newest()
        except FileFault as error:
            logger.error("event=security_files_not_reloaded files=%s %s", names, error)
        else:
            logger.info("event=security_files_reloaded files=%s", names)

    def _newest(self) -> Value:
        try:
            return self._read()
        except FileFault:
            raise
        except Exception as error:  # its message might hold a part of the file
            names = ", ".join(map(str, self._paths))
            raise FileFault(f"{names}: cannot be used: {type(error).__name__}") from None

    def _fingerprint(self) -> tuple[Fingerprint | None, ...]:
        return tuple(map(_fingerprint, self._paths))


async def watch(files: Sequence[WatchedFiles[Any]], period_seconds: float = PERIOD_SECONDS) -> None:
    """Refresh the files in each period, until cancelled."""
    while True:
        await asyncio.sleep(period_seconds)
        try:
            await run_blocking(_refresh_all, files)
        except RuntimeError as error:  # no thread can be started now; withdrawn keys must not stay
            logger.error("event=security_files_not_checked %s", error)


def read_file(path: Path) -> bytes:
    """The content of a file; raises FileFault."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise FileFault(f"{path}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise FileFault(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    return content


def warn_if_readable_by_others(path: Path) -> None:
    """Log a warning if every user of the machine may read a file with secrets."""
    with suppress(OSError):  # it may just have been replaced
        if path.stat().st_mode & 0o004:
            logger.warning("event=secret_readable_by_others file=%s", path)


def _refresh_all(files: Sequence[WatchedFiles[Any]]) -> None:
    for each in files:
        each.refresh()


def _fingerprint(path: Path) -> Fingerprint | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
