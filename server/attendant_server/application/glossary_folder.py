"""Glossaries that are stored as files, and those of requests."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from attendant_server.application.glossaries import MAX_ENTRIES, Glossary, GlossaryEntry
from attendant_server.application.jobs import JobRunner
from attendant_server.errors import GlossaryNotFound, GlossaryUnreadable, InvalidRequest

logger = logging.getLogger(__name__)

SUFFIX = ".tsv"
MAX_FILE_BYTES = 8_000_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class _Stored(NamedTuple):
    version: tuple[int, int, int]
    glossary: Glossary


class GlossaryFolder:
    """The files ``NAME.tsv`` of a folder, each a glossary.

    A line of a file has a term and its translations, separated by tabs. Empty lines and lines that
    begin with ``#`` are left out. A file is read at its first use, and again once it has changed.
    """

    def __init__(self, folder: Path | None, jobs: JobRunner) -> None:
        """None: there are no stored glossaries."""
        self._folder, self._jobs = folder, jobs
        self._stored: dict[str, _Stored] = {}

    async def glossary(self, name: str, entries: Sequence[GlossaryEntry]) -> Glossary | None:
        """The stored glossary of this name with further entries; None if there is neither.

        Entries of the request replace stored ones with the same term. Raises InvalidRequest,
        GlossaryNotFound or GlossaryUnreadable.
        """
        if not (name or entries):
            return None
        return await self._jobs.run(lambda: self._built(name, entries))

    def _built(self, name: str, entries: Sequence[GlossaryEntry]) -> Glossary:
        if not name:
            return Glossary(entries)
        stored = self._read(name)
        return Glossary([*stored.entries, *entries]) if entries else stored

    def _read(self, name: str) -> Glossary:
        if self._folder is None or not NAME.fullmatch(name):
            raise GlossaryNotFound("the server has no glossary of this name")
        path = self._folder / f"{name}{SUFFIX}"
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                version = status.st_ino, status.st_mtime_ns, status.st_size
                stored = self._stored.get(name)
                if stored is None or stored.version != version:
                    content = file.read(MAX_FILE_BYTES + 1)
                    stored = _Stored(version, _parsed(name, content))
                    self._stored[name] = stored
        except FileNotFoundError:
            raise GlossaryNotFound("the server has no glossary of this name") from None
        except OSError as error:
            logger.error("event=glossary_unreadable glossary=%s %s", name, type(error).__name__)
            raise GlossaryUnreadable(f"the glossary {name} cannot be read") from None
        except GlossaryUnreadable as error:
            logger.error("event=glossary_unreadable glossary=%s %s", name, error)
            raise
        return stored.glossary


def _parsed(name: str, content: bytes) -> Glossary:
    """The glossary of a file; raises GlossaryUnreadable."""
    if len(content) > MAX_FILE_BYTES:
        raise GlossaryUnreadable(f"the glossary {name} has more than {MAX_FILE_BYTES} bytes")
    try:
        entries = list(_entries(content.decode("utf-8-sig")))
        if len(entries) > MAX_ENTRIES:
            raise GlossaryUnreadable(f"the glossary {name} has more than {MAX_ENTRIES} entries")
        return Glossary(entries)
    except UnicodeDecodeError:
        raise GlossaryUnreadable(f"the glossary {name} is not UTF-8") from None
    except InvalidRequest as fault:
        raise GlossaryUnreadable(f"the glossary {name}: {fault}") from None


def _entries(text: str) -> Iterator[GlossaryEntry]:
    # Not splitlines, which would end lines at form feeds and other separators within terms.
    for number, line in enumerate(StringIO(text, newline=None), 1):
        if not line.strip() or line.startswith("#"):
            continue
        source, *targets = line.rstrip("\t\n").split("\t")
        yield GlossaryEntry.of(source, targets, f"line {number}")
