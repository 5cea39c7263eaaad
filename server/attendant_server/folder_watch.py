"""Watches the folder of the bundles for changes."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

from attendant_manifest.rules import MANIFEST_NAME

from attendant_server.bundles import BundleError
from attendant_server.system.blocking_work import run_blocking

Fingerprint = frozenset[tuple[str, int, int, int]]

logger = logging.getLogger(__name__)


async def watch_folder(
    root: Path,
    period_seconds: float,
    on_change: Callable[[], Awaitable[bool]],
    update: Callable[[], int] = int,
) -> None:
    """Await ``on_change`` at first and after each change of files in a folder, until cancelled.

    A change is reported once the files have stayed the same for a period: a bundle that is being
    copied is not read. ``on_change`` returns whether it has looked at the folder; otherwise it is
    awaited again after a period. Each look begins with ``update``; if it returns another number,
    this is a change as well.
    """
    seen: tuple[int, Fingerprint] | None = None  # The folder may have changed since it was read.
    before: tuple[int, Fingerprint] | None = None
    while True:
        await asyncio.sleep(period_seconds)
        try:
            found = await run_blocking(lambda: (update(), _fingerprint(root)))
        except (BundleError, OSError, RuntimeError) as error:  # such as too many open files
            logger.error("event=bundles_not_watched %s", type(error).__name__)
            continue
        if found != seen and found == before and await on_change():
            seen = found
        before = found


def _fingerprint(root: Path) -> Fingerprint:
    """Path, identity, size and time of change of each file of the bundles."""
    found = set()
    for path in _files(root):
        with suppress(OSError):  # removed just now, a link to itself, or unreadable
            status = os.stat(path)
            found.add((path, status.st_ino, status.st_size, status.st_mtime_ns))
    return frozenset(found)


def _files(root: Path) -> Iterator[str]:
    """Everything in ``<name>/``, and in those ``<name>/<version>/`` that have a manifest.

    Links to such folders are followed; one to the root of the file system is thus not walked.
    """
    for entry in root.glob("*/*"):
        yield str(entry)
        if not os.path.exists(entry / MANIFEST_NAME):
            continue
        for folder, _, names in os.walk(entry):
            yield from (os.path.join(folder, name) for name in names)
