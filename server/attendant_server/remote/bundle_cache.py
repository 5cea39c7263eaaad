"""A bounded folder of downloaded bundles, which several servers may share.

``<origin>/manifests/<name>/<version>/`` mirrors the manifests of a URL,
``<origin>/<precision>/<name>/<version>/`` is complete, and
``<origin>/partial/<precision>/<name>/<version>/`` is what has arrived of a version.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attendant_server.bundles import Bundle, BundleError

MANIFESTS, PARTIAL = "manifests", "partial"
USED_SUFFIX = ".used"

logger = logging.getLogger(__name__)


class BundleCache:
    """The folder of one URL in a cache, and the room of the whole cache.

    A server that serves a version holds a shared lock of a file beside it, which says by its time
    when the version was used last. The system releases the locks of a process that is killed.
    """

    def __init__(self, folder: Path, url: str, max_bytes: int) -> None:
        """``max_bytes`` limits all URLs of the cache together. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._max_bytes = folder.resolve(), max_bytes
        self._origin = self._folder / hashlib.sha256(url.encode()).hexdigest()[:16]
        self.manifests = self._origin / MANIFESTS
        """The mirror of the manifests."""
        self.manifests.mkdir(parents=True, exist_ok=True)
        self._used: dict[Path, int] = {}
        """The open files of the locks, by folder."""

    def folder_of(self, bundle: Bundle) -> Path:
        """Where a version is when it is complete."""
        return self._origin / bundle.precision / bundle.manifest.name / bundle.manifest.version

    def partial_folder_of(self, bundle: Bundle) -> Path:
        """Where the files of a version are until it is complete."""
        return self._origin / PARTIAL / self.folder_of(bundle).relative_to(self._origin)

    def complete_folders(self, key: str) -> list[Path]:
        """The complete folders of ``name/version``, one for each precision that is there."""
        found = self._origin.glob(f"*/{key}")
        return [folder for folder in found if folder.parts[-3] not in (MANIFESTS, PARTIAL)]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let no other server change the files of the cache, except for manifests."""
        file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def use(self, folder: Path) -> None:
        """Keep a version, which may not be complete yet, until it is released."""
        used = folder.with_name(folder.name + USED_SUFFIX)
        if folder not in self._used:
            used.parent.mkdir(parents=True, exist_ok=True)
            self._used[folder] = os.open(used, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._used[folder], fcntl.LOCK_SH)
        os.utime(used)

    def release(self, key: str = "") -> None:
        """Let a version be removed when room is needed; all of them without ``key``."""
        for folder in list(self._used):
            if key in ("", "/".join(folder.parts[-2:])):
                os.close(self._used.pop(folder))

    def num_bytes(self) -> int:
        """Bytes of all files of the cache."""
        return _num_bytes(self._folder)

    def make_room(self, bundle: Bundle, num_bytes: int) -> None:
        """Remove versions that no server uses until ``num_bytes`` more fit; raises BundleError.

        The least recently used ones go first, and before them what has arrived of other versions.
        """
        for remove, folder in self._removable(self.partial_folder_of(bundle)):
            if self._room() >= num_bytes:
                return
            remove(folder)
        if self._room() >= num_bytes:
            return
        raise BundleError(
            f"{bundle.key}: needs {num_bytes} more bytes, and {self._room()} are left of "
            f"max_bundles_cache_bytes {self._max_bytes} and of the disk; versions that are served "
            "stay in the cache"
        )

    def _room(self) -> int:
        return min(self._max_bytes - self.num_bytes(), shutil.disk_usage(self._folder).free)

    def _removable(self, kept: Path) -> list[tuple[Callable[[Path], None], Path]]:
        """Folders in the order of their removal, with what removes them unless they are in use."""
        partial = [each for each in self._folder.glob(f"*/{PARTIAL}/*/*/*") if each != kept]
        versions = [each for each in self._folder.glob("*/*/*/*") if _is_version(each)]
        removed = [(_remove_partial, folder) for folder in partial]
        return [*removed, *((_remove_unused, each) for each in sorted(versions, key=_last_use))]


def _is_version(folder: Path) -> bool:
    return folder.parts[-3] not in (MANIFESTS, PARTIAL) and folder.is_dir()


def _remove_partial(folder: Path) -> None:
    """Remove what only the holder of the cache's lock uses."""
    shutil.rmtree(folder, ignore_errors=True)


def _last_use(folder: Path) -> float:
    with suppress(OSError):
        return folder.with_name(folder.name + USED_SUFFIX).stat().st_mtime
    return 0.0


def _remove_unused(folder: Path) -> None:
    """Remove a folder unless a server uses it."""
    file = os.open(folder.with_name(folder.name + USED_SUFFIX), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        # Out of sight at once: a server that is killed now leaves no half of a version.
        doomed = folder.with_name(f".{folder.name}.removed")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        logger.info("event=bundle_removed_from_cache folder=%s", folder)
    finally:
        os.close(file)


def _num_bytes(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed just now by another server
                total += os.lstat(os.path.join(path, name)).st_size
    return total
