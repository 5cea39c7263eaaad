"""The bundles of a URL: mirrors their manifests and downloads the versions that are served."""

import logging
import os
import shutil
import threading
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from attendant_manifest import ManifestError, parse_manifest
from attendant_manifest.rules import MANIFEST_NAME

from attendant_server.bundles import MAX_MANIFEST_BYTES, Bundle, BundleError, read_small
from attendant_server.reasons import reason_of
from attendant_server.remote.bundle_cache import BundleCache
from attendant_server.remote.downloads import Downloader, DownloadObserver
from attendant_server.remote.manifest_mirror import ManifestMirror
from attendant_server.remote.remote_files import RemoteError, RemoteFiles

logger = logging.getLogger(__name__)


class RemoteBundles:
    """A `BundleSource` over a URL. Any thread; updates and downloads run one after the other."""

    def __init__(
        self,
        url: str,
        cache: BundleCache,
        observer: DownloadObserver,
        models: Collection[str] = (),
        reads_signatures: bool = False,
    ) -> None:
        """``models`` that are ``name/version`` are found even if the URL has no listings.

        Raises ImportError if the library of the protocol is missing, ValueError if it is unknown.
        """
        self._url, self._cache, self._observer = url, cache, observer
        self._stopping = threading.Event()
        self._downloader = Downloader(RemoteFiles(url), observer, self._stopping)
        known = [model for model in models if "/" in model]
        self._mirror = ManifestMirror(self._downloader, cache.manifests, known, reads_signatures)
        self._changing = threading.Lock()
        self._is_reachable = False
        self._num_failed = 0
        self.num_cache_bytes = cache.num_bytes()
        """Bytes of the cache after the last change by this server."""

    @property
    def root(self) -> Path:
        """The mirror of the manifests."""
        return self._cache.manifests

    def update(self) -> int:
        """Mirror the manifests. Without a connection, the mirror stays as it was.

        Returns how many downloads have failed so far, so that they can be tried again. Raises
        BundleError if the cache cannot be written.
        """
        with self._changing:
            try:
                self._mirror.update()
                self._is_reachable = True
            except RemoteError as error:
                self._is_reachable = False
                self._on_failed()
                logger.error("event=bundles_not_listed url=%s %s", self._url, error)
            except OSError as error:
                raise _cache_error(error) from error
            return self._num_failed

    def check(self, bundle: Bundle) -> bool:
        """Whether a version is complete, or can be downloaded.

        Raises BundleError if its manifest is not the one of the complete version: callers who
        name a version always get the same model.
        """
        content = _manifest_in(bundle.directory)
        for folder in self._cache.complete_folders(bundle.key):
            if _manifest_in(folder) != content:
                raise BundleError(
                    f"{bundle.key}: its {MANIFEST_NAME} has changed since the version was "
                    "downloaded; a changed bundle needs another version"
                )
        return self._is_reachable or self._cache.folder_of(bundle).is_dir()

    def fetch(self, bundle: Bundle) -> Bundle:
        """The bundle in its complete folder; downloads what is missing. Raises BundleError."""
        folder = self._cache.folder_of(bundle)
        try:
            with self._changing:
                self._cache.use(folder)
                if not folder.is_dir():
                    self._complete(bundle, folder)
                self.num_cache_bytes = self._cache.num_bytes()
        except OSError as error:
            self._on_failed()
            raise _cache_error(error) from error
        except BundleError:
            self._on_failed()
            raise
        return replace(bundle, directory=folder, has_loaded_files_only=True)

    def release(self, key: str) -> None:
        """The version may be removed from the cache when room is needed."""
        self._cache.release(key)

    def close(self) -> None:
        """Stop downloads, and release all versions."""
        self._stopping.set()
        self._cache.release()

    def _complete(self, bundle: Bundle, folder: Path) -> None:
        """Download a version, unless another server has done so, and give it its name."""
        with self._cache.locked():
            if folder.is_dir():
                return
            partial = self._cache.partial_folder_of(bundle)
            self._begin(bundle, partial)
            for file in bundle.loaded_files():
                remote = f"{bundle.key}/{file.path}"
                try:
                    self._downloader.save(remote, partial / file.path, file.size_bytes, file.sha256)
                except RemoteError as error:
                    raise BundleError(f"{remote}: {error}") from error
            partial.rename(folder)
            _sync(folder.parent)
        self._observer.on_bundle_download("completed")
        logger.info(
            "event=bundle_downloaded model=%s bytes=%d", bundle.key, bundle.num_loaded_bytes
        )

    def _begin(self, bundle: Bundle, partial: Path) -> None:
        """Make room for a version, and keep what has arrived of it with the same manifest."""
        content = _manifest_in(bundle.directory)
        try:
            is_same = parse_manifest(content.decode("utf-8")) == bundle.manifest
        except (ManifestError, UnicodeDecodeError):
            is_same = False
        if not is_same:
            raise BundleError(f"{bundle.key}: its {MANIFEST_NAME} has just changed")
        if not (partial / MANIFEST_NAME).exists() or _manifest_in(partial) != content:
            shutil.rmtree(partial, ignore_errors=True)
        sizes = [(partial / file.path, file.size_bytes) for file in bundle.loaded_files()]
        arrived = sum(path.stat().st_size for path, _ in sizes if path.exists())
        self._cache.make_room(bundle, bundle.num_loaded_bytes + len(content) - arrived)
        partial.mkdir(parents=True, exist_ok=True)
        (partial / MANIFEST_NAME).write_bytes(content)
        logger.info("event=bundle_downloading model=%s arrived_bytes=%d", bundle.key, arrived)

    def _on_failed(self) -> None:
        self._num_failed += 1
        self._observer.on_bundle_download("failed")


def _manifest_in(folder: Path) -> bytes:
    return read_small(folder, MANIFEST_NAME, MAX_MANIFEST_BYTES)


def _cache_error(error: OSError) -> BundleError:
    return BundleError(f"bundles_cache_dir: {error.strerror or reason_of(error)}")


def _sync(folder: Path) -> None:
    """Let a new name in a folder survive a loss of power."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
