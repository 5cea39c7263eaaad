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
        """``read`` raises FileFault; the first reading passes it on."""
        self._paths, self._read = paths, read
        # Taken before reading: a change in between is seen by the next check.
        self._seen = self._changing = self._fingerprint()
        self.value = read()

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
            self.value = self._read()
        except FileFault as error:
            logger.error("event=security_files_not_reloaded files=%s %s", names, error)
        except Exception as error:  # its message might hold a part of the file
            kind = type(error).__name__
            logger.error("event=security_files_not_reloaded files=%s error=%s", names, kind)
        else:
            logger.info("event=security_files_reloaded files=%s", names)

    def _fingerprint(self) -> tuple[Fingerprint | None, ...]:
        return tuple(map(_fingerprint, self._paths))


async def watch(files: Sequence[WatchedFiles[Any]], period_seconds: float = PERIOD_SECONDS) -> None:
    """Refresh the files in each period, until cancelled."""
    while True:
        await asyncio.sleep(period_seconds)
        await run_blocking(_refresh_all, files)


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
