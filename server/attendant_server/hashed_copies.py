"""Hashes files, and copies the bytes that were hashed."""

import hashlib
import tempfile
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

from attendant_server.reasons import reason_of

READ_BYTES = 16 * 1024
"""Bytes of a file that are read, hashed and written at a time. Linux caches larger writes in larger
pages, and a process that maps a part of such a page seems to use all of it."""


class CopyError(OSError):
    """A copy cannot be written, such as to a full disk."""


def hash_of(path: Path, size_bytes: int, copy: Path | None) -> str:
    """The SHA-256 of a file; the bytes that are hashed are written to ``copy``.

    Does not read much more than ``size_bytes`` of a file that grows meanwhile. Raises CopyError,
    and OSError if the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as content, ExitStack() as files:
        written = None if copy is None else files.enter_context(_new_file(copy))
        for _ in range(size_bytes // READ_BYTES + 2):
            part = content.read(READ_BYTES)
            digest.update(part)
            if written is not None:
                _write(written, part)
    return digest.hexdigest()


def _new_file(path: Path) -> FileIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb", buffering=0)
    except OSError as error:
        raise _copy_error(error) from error


def _write(file: FileIO, part: bytes) -> None:
    rest = memoryview(part)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise _copy_error(error) from error


def _copy_error(error: OSError) -> CopyError:
    reason = error.strerror or reason_of(error)
    return CopyError(f"cannot be copied to {tempfile.gettempdir()}: {reason}")
