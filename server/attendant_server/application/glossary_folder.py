"""Glossaries that are stored, in a folder or with a model, and those of requests."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from attendant_glossaries import MAX_FILE_BYTES, NAME, SUFFIX, GlossaryEntry

from attendant_server.application.glossaries import Glossary, parsed_glossary
from attendant_server.application.jobs import JobRunner
from attendant_server.errors import GlossaryNotFound, GlossaryUnreadable

logger = logging.getLogger(__name__)


class _Stored(NamedTuple):
    version: tuple[int, int, int]
    glossary: Glossary


class GlossaryFolder:
    """The files ``NAME.tsv`` of a folder, each a glossary.

    A file is read at its first use, and again once it has changed.
    """

    def __init__(self, folder: Path | None, jobs: JobRunner) -> None:
        """None: there are no stored glossaries."""
        self._folder, self._jobs = folder, jobs
        self._stored: dict[str, _Stored] = {}

    async def glossary(
        self,
        name: str,
        entries: Sequence[GlossaryEntry],
        of_model: Mapping[str, Glossary] = MappingProxyType({}),
    ) -> Glossary | None:
        """The stored glossary of this name with further entries; None if there is neither.

        ``of_model`` are the glossaries that come with the model. A file of the folder replaces one
        of them: the operator of a server can correct it without a new bundle, and a new bundle does
        not change a glossary of the folder. Entries of the request replace stored ones with the
        same term. Raises InvalidRequest, GlossaryNotFound or GlossaryUnreadable.
        """
        if not (name or entries):
            return None
        return await self._jobs.run(lambda: self._built(name, entries, of_model))

    def _built(
        self, name: str, entries: Sequence[GlossaryEntry], of_model: Mapping[str, Glossary]
    ) -> Glossary:
        if not name:
            return Glossary(entries)
        try:
            stored = self._read(name)
        except GlossaryNotFound:
            if name not in of_model:
                raise
            stored = of_model[name]
        return Glossary(entries, stored) if entries else stored

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
                    stored = _Stored(version, parsed_glossary(name, content))
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
