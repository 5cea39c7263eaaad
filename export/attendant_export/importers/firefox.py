"""Models of Firefox Translations, by the languages that they translate.

Files are downloaded to a cache, verified, and unpacked there. A model in the cache is imported
without a connection.
"""

import hashlib
import json
import logging
import os
import re
from datetime import date
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Statements
from attendant_export.importers.downloads import DownloadError, download, unpack
from attendant_export.importers.firefox_registry import FirefoxModel, Registry, RemoteFile

logger = logging.getLogger(__name__)

PREFIX = "firefox:"
REGISTRY_URL = (
    "https://storage.googleapis.com/moz-fx-translations-data--303e-prod-translations-data"
    "/db/models.json"
)
"""The registry that the README of github.com/mozilla/translations names."""
REGISTRY_VARIABLE = "ATTENDANT_FIREFOX_REGISTRY"
PAIR = re.compile(r"[a-z]{2,3}([-_][a-z0-9]+)*-[a-z]{2,3}([-_][a-z0-9]+)*", re.IGNORECASE)
LICENSE = "MPL-2.0"
CREDIT = (
    "Firefox Translations, by Mozilla: https://github.com/mozilla/translations, which states the "
    f"licence {LICENSE}"
)
MAX_REGISTRY_BYTES = 2**26
MAX_FILE_BYTES = 2**30
REGISTRY_WAITS = (1,)


def open_firefox(source: str, choice: str | None = None) -> Checkpoint:
    """The model that ``firefox:SOURCE-TARGET`` names; raises CheckpointError.

    ``choice`` is that of `Registry.choose`.
    """
    pair = source.removeprefix(PREFIX)
    if not PAIR.fullmatch(pair):
        raise CheckpointError(
            f"{source}: want {PREFIX}SOURCE-TARGET with two languages, such as {PREFIX}en-de"
        )
    cache = _cache_folder()
    with FileLock(cache / ".lock"):  # Another import waits, and then has the same files.
        registry = _read_registry(os.environ.get(REGISTRY_VARIABLE) or REGISTRY_URL, cache)
        model = registry.choose(pair, choice)
        files = model.files()
        folder = cache / f"{model.pair}-{_digest(registry, files)}"
        folder.mkdir(parents=True, exist_ok=True)
        logger.info("%s%s: %s, in %s", PREFIX, model.pair, model, folder)
        for file in files:
            _fetch(f"{registry.base_url}/{quote(file.path)}", file, folder)
    return Checkpoint(folder, f"{PREFIX}{model.pair}", model.sha256, _statements(model))


def _cache_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # as the specification of the variable demands
        base = Path.home() / ".cache"
    folder = base / "attendant" / "firefox"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _read_registry(url: str, cache: Path) -> Registry:
    """The registry, as it was read last if it cannot be reached."""
    cached = cache / f"registry-{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"
    part = cached.with_suffix(".part")
    part.unlink(missing_ok=True)
    try:
        download(url, part, MAX_REGISTRY_BYTES, "registry", REGISTRY_WAITS)
        registry = Registry(url, part.read_bytes())
        part.replace(cached)
    except DownloadError as error:
        if not error.is_temporary or not cached.is_file():
            raise CheckpointError(f"the registry {url} cannot be downloaded: {error}") from error
        day = date.fromtimestamp(cached.stat().st_mtime)
        logger.warning("the registry %s cannot be reached: %s; using that of %s", url, error, day)
        return Registry(url, cached.read_bytes())
    finally:
        part.unlink(missing_ok=True)
    return registry


def _digest(registry: Registry, files: list[RemoteFile]) -> str:
    """A name for the folder of these files, which holds no others."""
    stated = [registry.base_url, *([file.path, file.sha256] for file in files)]
    return hashlib.sha256(json.dumps(stated).encode()).hexdigest()[:16]


def _fetch(url: str, file: RemoteFile, folder: Path) -> None:
    """Have a verified file in the cache; raises CheckpointError."""
    target, part = folder / file.name, folder / f"{file.name}.part"
    if target.is_file() and _difference(file, target) is None:
        return
    if file.sha256 is None:  # The file may have changed since its first bytes were downloaded.
        part.unlink(missing_ok=True)
    max_bytes = min(file.size_bytes or MAX_FILE_BYTES, MAX_FILE_BYTES)
    try:
        # A file that does not become smaller becomes longer by a few bytes for each block.
        download(url, part, max_bytes + max_bytes // 100 + 2**16, file.name)
    except DownloadError as error:
        raise CheckpointError(f"{file.name} cannot be downloaded from {url}: {error}") from error
    unpacked = folder / f"{file.name}.unpacked"
    try:
        unpack(part, unpacked, max_bytes)
        if difference := _difference(file, unpacked):
            raise DownloadError(difference)
        unpacked.replace(target)
    except DownloadError as error:
        raise CheckpointError(f"{url}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
        unpacked.unlink(missing_ok=True)


def _difference(file: RemoteFile, path: Path) -> str | None:
    """The difference of a downloaded file from the registry's statement, if there is any."""
    size = path.stat().st_size
    if file.size_bytes not in (None, size):
        return f"{size:,} bytes, but the registry states {file.size_bytes:,}"
    if file.sha256 is not None and (found := _sha256(path)) != file.sha256:
        return f"the SHA-256 is {found}, but the registry states {file.sha256}"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _statements(model: FirefoxModel) -> Statements:
    return Statements(license=LICENSE, languages=model.languages, credits=(CREDIT,))
