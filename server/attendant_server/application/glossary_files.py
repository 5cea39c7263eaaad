"""The format of glossaries in files: lines with a term and its translations, separated by tabs."""

from collections.abc import Iterator
from io import StringIO

from attendant_server.application.glossaries import MAX_ENTRIES, Glossary, GlossaryEntry
from attendant_server.errors import GlossaryUnreadable, InvalidRequest

MAX_FILE_BYTES = 8_000_000
"""Largest file of a glossary; manifests have the same limit for those of bundles."""


def parsed_glossary(name: str, content: bytes) -> Glossary:
    """The glossary ``name`` of the bytes of a file; raises GlossaryUnreadable.

    Empty lines and lines that begin with ``#`` are left out.
    """
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
