"""Exchanges the folder of a bundle with a new one, so that no signal and no crash can lose it."""

import ctypes
import os
from pathlib import Path

from attendant_manifest.rules import REPLACED_SUFFIX

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # constants of renameat2(2)


def exchange_folders(folder: Path, new: Path) -> None:
    """Exchange ``folder`` with ``new``, which is on the same file system and belongs to the caller.

    If this raises, ``folder`` has its old or its new content. A crash may leave the old content in
    `replaced_folder`, and then the next call of `put_back` restores it.
    """
    sync_tree(new)
    if not _exchange_at_once(folder, new):
        _exchange_by_renames(folder, new)
    sync(folder.parent)  # Before the caller deletes the old content.


def replaced_folder(folder: Path) -> Path:
    """The path of the old content of ``folder`` while it is being exchanged."""
    return folder.parent / f".{folder.name}{REPLACED_SUFFIX}"


def describe_replaced(folder: Path) -> str:
    """The end of a message about ``folder`` if an exchange ended too early, else nothing."""
    replaced = replaced_folder(folder)
    if not replaced.is_dir():
        return ""
    return f"; a killed rebuild left the bundle in {replaced}: rename that folder to {folder.name}"


def put_back(folder: Path) -> bool:
    """Restore ``folder`` if an exchange ended when it was missing; returns whether it did."""
    replaced = replaced_folder(folder)
    is_missing = replaced.is_dir() and not folder.exists()
    if is_missing:
        replaced.rename(folder)
    return is_missing


def sync(path: Path) -> None:
    """Wait until a file, or the names of the files in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and all its files are on the disk, so that a power failure keeps them."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def _exchange_at_once(folder: Path, new: Path) -> bool:
    """Exchange two folders in one step. Returns False if the system or file system cannot do it."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except AttributeError:  # Only Linux has it.
        return False
    paths = (os.fsencode(folder), os.fsencode(new))
    failed = renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return not failed


def _exchange_by_renames(folder: Path, new: Path) -> None:
    replaced = replaced_folder(folder)
    try:
        folder.rename(replaced)
        new.rename(folder)
    finally:
        put_back(folder)
    replaced.rename(new)
