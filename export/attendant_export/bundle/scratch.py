"""Locks, and scratch folders for bundles that are being written: one process at a time has each."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attendant_export.bundle.manifest import BundleError


@contextmanager
def locked(folder: Path, bundle: Path) -> Iterator[None]:
    """Lock ``folder``, which must exist, to write ``bundle``. The lock ends with this process.

    Raises BundleError if another process has the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if not _lock(descriptor) or not _is_at(folder, descriptor):
            raise BundleError(
                f"{bundle}: another process is writing this bundle: try again when it has ended"
            )
        yield
    finally:
        os.close(descriptor)


@contextmanager
def scratch_folder(path: Path, bundle: Path) -> Iterator[Path]:
    """The folder ``path``, locked and empty, for the files of a ``bundle`` that is being written.

    It is on the file system of the bundle, so that a rename moves the finished one. Files that a
    killed process left in it are removed first. Raises BundleError as `locked`.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    with locked(path, bundle):
        for leftover in path.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        try:
            yield path
        finally:
            shutil.rmtree(path)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open folder is still at ``path``. The process that had it may have removed it."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))
