"""Checkpoints on the Hugging Face Hub, or on another hub that ``HF_ENDPOINT`` names.

A file is downloaded when an importer first asks for it, so that no other files are. The library's
cache holds the files, and the fact that a checkpoint does not have one.
"""

import errno
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.tqdm import tqdm

from attendant_export.importers.checkpoint import CONFIG, Checkpoint, CheckpointError

HTTP_LOGGERS = ("httpx", "httpx2")
"""Loggers of the HTTP libraries of different versions."""
DISK_WARNING = "Not enough free disk space"
URL = re.compile(r"\W*(https?://|\(…\)).*")
"""A URL, or the end of one as the library shortens it, and what follows in a message."""


class HubCheckpoint(Checkpoint):
    """A checkpoint at one commit of a model on the hub."""

    def __init__(self, name: str, revision: str | None = None) -> None:
        """Raises CheckpointError for a model or a revision that cannot be had."""
        config = _download(name, CONFIG, revision)
        if config is None:
            raise CheckpointError(f"{name}: {CONFIG} is missing")
        # The cache has one folder for each commit, with the commit as its name.
        super().__init__(config.parent, source=name, revision=config.parent.name)

    def find(self, name: str) -> Path | None:
        """The path of a file in the cache, or None if the checkpoint does not have it.

        Raises CheckpointError if neither the cache nor the hub can tell.
        """
        cached = try_to_load_from_cache(self.source, name, revision=self.revision)
        if cached is not None:  # a path, or a mark that there is no such file
            return Path(cached) if isinstance(cached, str) else None
        return _download(self.source, name, self.revision)


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
