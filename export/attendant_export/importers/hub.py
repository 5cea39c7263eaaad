"""Checkpoints on the Hugging Face Hub, or on another hub that ``HF_ENDPOINT`` names.

A file is downloaded when an importer first asks for it, so that no other files are. The library's
cache holds the files, and the fact that a checkpoint does not have one. The names of all files are
asked for only if an importer needs them, and kept in the cache for imports without the hub.
"""

import errno
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import (
    HfApi,
    constants,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.tqdm import tqdm

from attendant_export.importers.checkpoint import CONFIG, Checkpoint, CheckpointError
from attendant_export.importers.opennmt_py_file import SUFFIX as OPENNMT_PY

HTTP_LOGGERS = ("httpx", "httpx2")
"""Loggers of the HTTP libraries of different versions."""
DISK_WARNING = "Not enough free disk space"
OTHER_FILES = (".spm", "_vocabulary.txt", "_vocabulary.json", "modules.json")
"""Ends of names of files in formats without a configuration: vocabularies of Marian and of
CTranslate2, modules of static embeddings. OpenNMT-py has a checkpoint only."""
LISTINGS = ".attendant"
"""The folder of listings in that of a model in the cache."""
URL = re.compile(r"\W*(https?://|\(…\)).*")
"""A URL, or the end of one as the library shortens it, and what follows in a message."""


class Listing(NamedTuple):
    """The names of all files of the model at a commit, in the cache or not."""

    commit: str
    names: frozenset[str]


class HubCheckpoint(Checkpoint):
    """A checkpoint at one commit of a model on the hub."""

    def __init__(self, name: str, revision: str | None = None) -> None:
        """Raises CheckpointError for a model or a revision that cannot be had."""
        self._listing: Listing | None = None
        first = _find_config(name, revision)
        if first is None:
            self._listing = _list(name, revision)
            first = _find_other(name, self._listing)
        # The cache has one folder for each commit, with the commit as its name.
        super().__init__(first.parent, source=name, revision=first.parent.name)

    def names(self) -> list[str]:
        """The names of all files, without those in folders, sorted; raises CheckpointError."""
        if self._listing is None:
            self._listing = _list(self.source, self.revision)
        return sorted(name for name in self._listing.names if "/" not in name)

    def find(self, name: str) -> Path | None:
        """The path of a file in the cache, or None if the checkpoint does not have it.

        Raises CheckpointError if neither the cache nor the hub can tell.
        """
        if self._listing is not None and name not in self._listing.names:
            return None
        cached = try_to_load_from_cache(self.source, name, revision=self.revision)
        if cached is not None:  # a path, or a mark that there is no such file
            return Path(cached) if isinstance(cached, str) else None
        return _download(self.source, name, self.revision)


def _find_config(name: str, revision: str | None) -> Path | None:
    """The path of the configuration in the cache, or None if the model does not have one."""
    try:
        return _download(name, CONFIG, revision)
    except CheckpointError:
        # Without the hub, the library knows that there is none, but does not say so.
        known = try_to_load_from_cache(name, CONFIG, revision=revision)
        if known is None or isinstance(known, str):
            raise
        return None


def _find_other(name: str, listing: Listing) -> Path:
    """The path of a file that models of formats without a configuration have at the top."""
    at_top = sorted(file for file in listing.names if "/" not in file)
    checkpoints = [file for file in at_top if file.endswith(OPENNMT_PY)]
    files = [file for file in at_top if file.endswith(OTHER_FILES)] or checkpoints
    if files == checkpoints and len(files) > 1:  # Each may be large.
        raise CheckpointError(
            f"{name} has several checkpoints: {', '.join(files)}; download one of them and its "
            "tokenizer, and give its path"
        )
    path = _download(name, files[0], listing.commit) if files else None
    if path is None:
        raise CheckpointError(f"{name}: {CONFIG} is missing")
    return path


def _list(name: str, revision: str | None) -> Listing:
    """The files of a model at a revision; without the hub, as they were listed before."""
    try:
        with _quiet():
            info = HfApi(endpoint=constants.ENDPOINT).model_info(name, revision=revision)
        listing = Listing(str(info.sha), frozenset(file.rfilename for file in info.siblings or ()))
        _save(name, listing)
        return listing
    except Exception as error:  # those of the HTTP library differ between versions
        is_refused = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError)
        cached = None if is_refused else _cached(name, revision or constants.DEFAULT_REVISION)
        if cached is None:
            reason = _describe(error, name, "the list of files", revision)
            raise CheckpointError(f"{name}: {reason}") from None
        return cached


def _save(name: str, listing: Listing) -> None:
    """Keep a listing, because the files in the cache do not tell which files there are."""
    path = _folder(name) / LISTINGS / f"{listing.commit}.json"
    scratch = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):  # Only an import without the hub needs it.
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(sorted(listing.names)))
        scratch.replace(path)


def _cached(name: str, revision: str) -> Listing | None:
    folder = _folder(name)
    reference = folder / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    path = folder / LISTINGS / f"{commit}.json"
    return Listing(commit, frozenset(json.loads(path.read_text()))) if path.is_file() else None


def _folder(name: str) -> Path:
    """The folder of a model in the cache."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")


def _download(name: str, file: str, revision: str | None) -> Path | None:
    """The path of a file in the cache, or None if the model does not have it."""
    try:
        with _quiet():
            return Path(hf_hub_download(name, file, revision=revision, tqdm_class=_bar_of(file)))
    except RemoteEntryNotFoundError:
        return None
    except Exception as error:  # those of the HTTP library differ between versions
        reason = _describe(error, name, file, revision)
        raise CheckpointError(f"{name}: {reason}") from None


def _bar_of(file: str) -> type[tqdm]:
    """The library's progress bar, which is on a terminal only, with the name of ``file``.

    The library itself shows the end of a URL, which may hold a signature.
    """

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            options |= {"desc": file, "leave": False}
            super().__init__(*args, **options)  # type: ignore[no-untyped-call]

    return Bar


@contextmanager
def _quiet() -> Iterator[None]:
    """Log no requests and retries, whose URLs may hold signatures. A full disk is an error."""
    for name in HTTP_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    hub_logging.set_verbosity(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", DISK_WARNING)
        yield


def _describe(error: Exception, name: str, file: str, revision: str | None) -> str:
    """One line without URLs of downloads, which may hold signatures."""
    hub, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    if isinstance(error, GatedRepoError):
        return f"the model is gated: accept its terms at {hub}/{name}, and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return f"no such folder, and no such model at {hub}; if it is private, set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"{hub} has no revision {revision} of this model"
    if _is_full_disk(error):
        return f"the disk of the cache {cache} has no space for {file}"
    # When the first file is asked for, the name may have been meant as a folder.
    where = "no such folder, and " if file == CONFIG else ""
    if isinstance(error, LocalEntryNotFoundError):
        where += f"not in the cache {cache}: "
    return f"{where}{file} cannot be downloaded from {hub}: {_reason(error)}"


def _is_full_disk(error: Exception) -> bool:
    is_warning = isinstance(error, UserWarning) and str(error).startswith(DISK_WARNING)
    return is_warning or (isinstance(error, OSError) and error.errno == errno.ENOSPC)


def _reason(error: BaseException) -> str:
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return _reason(error.__cause__)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"status {status}{'; check HF_TOKEN' if status in (401, 403) else ''}"
    return URL.sub("", str(error).partition("\n")[0]) or type(error).__name__
