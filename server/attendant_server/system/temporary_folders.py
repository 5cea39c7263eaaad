"""Temporary folders that are also removed if the process ends while they are in use."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_in_use = set[Path]()


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that only this user can open, until the block ends."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name)
        _in_use.add(folder)
        try:
            yield folder
        finally:
            _in_use.discard(folder)


def remove_temporary_folders() -> None:
    """Remove the folders in use, at the end of the process."""
    for folder in list(_in_use):
        shutil.rmtree(folder, ignore_errors=True)
