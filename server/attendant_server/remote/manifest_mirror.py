"""Mirrors the manifests of a URL, and its choices of default versions, into a folder."""

import logging
import os
import shutil
import threading
from collections.abc import Collection
from pathlib import Path

from attendant_manifest.rules import MANIFEST_NAME, NAME, SIGNATURE_NAME, VERSION
from attendant_manifest.signatures import MAX_SIGNATURE_FILE_BYTES

from attendant_server.bundles import MAX_MANIFEST_BYTES
from attendant_server.default_versions import FILE_NAME as DEFAULT_VERSION
from attendant_server.default_versions import MAX_BYTES as MAX_DEFAULT_VERSION_BYTES
from attendant_server.remote.downloads import Downloader
from attendant_server.remote.remote_files import RemoteError, RemoteNotFound

logger = logging.getLogger(__name__)


class ManifestMirror:
    """A folder that is like the remote one, without the files that manifests list.

    Files are replaced one by one and only if they have changed, so several servers may share it.
    What cannot be read now stays as it was.
    """

    def __init__(
        self, downloader: Downloader, folder: Path, known: Collection[str], reads_signatures: bool
    ) -> None:
        """``known`` are keys ``name/version`` that are there even if the remote lists nothing."""
        self._downloader, self._folder = downloader, folder
        self._known, self._reads_signatures = known, reads_signatures

    def update(self) -> None:
        """Raises RemoteError if the remote cannot be read, and OSError if the folder cannot."""
        found = set(self._known)
        for name in filter(NAME.fullmatch, self._names()):
            names = set(self._names(name))
            has_choice = DEFAULT_VERSION in names
            versions = filter(VERSION.fullmatch, names - {DEFAULT_VERSION})
            found |= {f"{name}/{version}" for version in versions}
            self._copy(f"{name}/{DEFAULT_VERSION}", MAX_DEFAULT_VERSION_BYTES, has_choice)
        for key in sorted(found):
            if self._reads_signatures:  # first, since a manifest without it would be refused
                self._copy(f"{key}/{SIGNATURE_NAME}", MAX_SIGNATURE_FILE_BYTES)
            self._copy(f"{key}/{MANIFEST_NAME}", MAX_MANIFEST_BYTES)
        for version in self._folder.glob("*/*/"):
            key = "/".join(version.parts[-2:])
            if version.is_dir() and key not in found:
                shutil.rmtree(version, ignore_errors=True)
        kept = {key.partition("/")[0] for key in found}
        for folder in self._folder.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _names(self, *folder: str) -> list[str]:
        """What a folder lists; nothing if it is none, or if the remote has no listings."""
        try:
            return self._downloader.names(*folder)
        except RemoteNotFound:
            return []
        except RemoteError as error:
            if self._known and 400 <= error.status < 500:  # listings are forbidden
                return []
            raise

    def _copy(self, path: str, max_bytes: int, exists: bool = True) -> None:
        """Bring a small file up to date; a file that the remote lacks is removed."""
        target = self._folder / path
        try:
            content = self._downloader.content(path, max_bytes) if exists else None
        except RemoteNotFound:
            content = None
        except RemoteError as error:
            if not error.status and not error.is_final:
                raise  # the remote side is away: all further files would wait as well
            logger.error("event=manifest_not_fetched file=%s %s", path, error)
            return
        if content is None:
            target.unlink(missing_ok=True)
        elif not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Its name is no manifest's, and no other server's or thread's.
            new = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
            new.write_bytes(content)
            new.rename(target)
