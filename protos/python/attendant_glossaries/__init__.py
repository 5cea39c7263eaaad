"""Glossaries: the limits of their entries, and the format of their files.

A line of a file has a term and its translations, separated by tabs. Empty lines and lines that
begin with ``#`` are left out. Must not import the code of the contract: the part of the server that
knows no messages uses this package.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from io import BytesIO, TextIOWrapper
from typing import NamedTuple

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Names of glossaries."""
SUFFIX = ".tsv"
"""The end of the names of their files."""
MAX_FILE_BYTES = 8_000_000
MAX_ENTRIES = 10_000
"""Entries of a glossary."""
MAX_TARGETS = 16
"""Translations of a term."""
MAX_TERM_CHARACTERS = 200


class GlossaryFault(ValueError):
    """A glossary breaks a rule; ``field`` is the place in it, "" for the whole glossary."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field, self.problem = field, problem


class GlossaryEntry(NamedTuple):
    """A term and its translations."""

    source: str
    targets: Sequence[str]
    """The translations. Other forms of the same word are translations of their own."""
    field: str
    """The name of the entry in messages."""

    @classmethod
    def of(cls, source: str, targets: Collection[str], field: str) -> "GlossaryEntry":
        """An entry with single spaces between words; raises GlossaryFault for a bad one.

        Its translations are composed (NFC), as models write them.
        """
        _check_num_targets(field, len(targets))
        composed = [unicodedata.normalize("NFC", _spaced(target)) for target in targets]
        entry = cls(_spaced(source), composed, field)
        _check_term(f"{field}.source", entry.source)
        for number, target in enumerate(entry.targets):
            _check_term(f"{field}.targets[{number}]", target)
        return entry


def parsed_entries(content: bytes) -> list[GlossaryEntry]:
    """The entries of a file; raises GlossaryFault, which names a bad line."""
    if len(content) > MAX_FILE_BYTES:
        raise GlossaryFault("", f"has more than {MAX_FILE_BYTES} bytes")
    entries: list[GlossaryEntry] = []
    try:
        for entry in _entries(content):
            if len(entries) == MAX_ENTRIES:
                raise GlossaryFault("", f"has more than {MAX_ENTRIES} entries")
            entries.append(entry)
    except UnicodeDecodeError:
        raise GlossaryFault("", "is not UTF-8") from None
    return entries


def _entries(content: bytes) -> Iterator[GlossaryEntry]:
    # Not splitlines, which would end lines at form feeds and other separators within terms. The
    # file is decoded in small parts, since a text takes up to four times the memory of its bytes.
    for number, line in enumerate(TextIOWrapper(BytesIO(content), "utf-8-sig"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        line, field = line.rstrip("\t\n"), f"line {number}"
        _check_num_targets(field, line.count("\t"))  # before they take memory
        source, *targets = line.split("\t")
        yield GlossaryEntry.of(source, targets, field)


def _spaced(term: str) -> str:
    return " ".join(term.split())


def _check_num_targets(field: str, num_targets: int) -> None:
    if not 1 <= num_targets <= MAX_TARGETS:
        problem = f"must have between 1 and {MAX_TARGETS} values, got {num_targets}"
        raise GlossaryFault(f"{field}.targets", problem)


def _check_term(field: str, term: str) -> None:
    if not term:
        raise GlossaryFault(field, "must not be empty")
    if len(term) > MAX_TERM_CHARACTERS:
        problem = f"at most {MAX_TERM_CHARACTERS} characters, got {len(term)}"
        raise GlossaryFault(field, problem)
