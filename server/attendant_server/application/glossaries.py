"""Glossaries: terms of a source language, each with one or several translations."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from attendant_server.application.splitting import Span
from attendant_server.application.words import word_spans
from attendant_server.errors import InvalidRequest

MAX_ENTRIES = 10_000
"""Entries of a glossary."""
MAX_TARGETS = 16
"""Translations of a term."""
MAX_TERM_CHARACTERS = 200

Words = tuple[str, ...]


class GlossaryEntry(NamedTuple):
    """A term and its translations."""

    source: str
    targets: Sequence[str]
    """The translations. Other forms of the same word are translations of their own."""
    field: str
    """The name of the entry in messages."""

    @classmethod
    def of(cls, source: str, targets: Iterable[str], field: str) -> "GlossaryEntry":
        """An entry with single spaces between words; raises InvalidRequest for a bad one.

        Its translations are composed (NFC), as models write them.
        """
        composed = [_normalized(_spaced(target)) for target in targets]
        entry = cls(_spaced(source), composed, field)
        _check_term(f"{field}.source", entry.source)
        if not 1 <= len(entry.targets) <= MAX_TARGETS:
            problem = f"must have between 1 and {MAX_TARGETS} values, got {len(entry.targets)}"
            raise InvalidRequest(f"{field}.targets", problem)
        for number, target in enumerate(entry.targets):
            _check_term(f"{field}.targets[{number}]", target)
        return entry


class TermMatch(NamedTuple):
    """A term in a text."""

    span: Span
    """Its place in the text, in code points."""
    entry: GlossaryEntry


class Glossary:
    """Finds the terms of its entries in texts.

    A term is found where all its words stand one after the other. A term in lower case stands for
    its words in any case; a term with an upper-case letter, such as a name, only for itself.
    """

    def __init__(self, entries: Iterable[GlossaryEntry]) -> None:
        """Of several entries with the same term, the last one counts.

        Raises InvalidRequest for a term without words.
        """
        self.entries = list({entry.source: entry for entry in entries}.values())
        self._exact: dict[Words, GlossaryEntry] = {}
        self._any_case: dict[Words, GlossaryEntry] = {}
        lengths: dict[str, set[int]] = {}
        for entry in self.entries:
            words = _words(entry.source)
            if not words:
                raise InvalidRequest(f"{entry.field}.source", "has no words")
            folded = _folded(words)
            (self._any_case if words == folded else self._exact)[words] = entry
            lengths.setdefault(folded[0], set()).add(len(words))
        # Not the terms themselves: thousands of them may begin with the same word.
        self._lengths = {word: sorted(own, reverse=True) for word, own in lengths.items()}

    def matches(self, text: str) -> list[TermMatch]:
        """The terms in a text, in order and without overlaps; longer ones win over shorter ones."""
        spans = word_spans(text)
        words = tuple(_normalized(text[start:end]) for start, end in spans)
        folded = _folded(words)
        found: list[TermMatch] = []
        position = 0
        while position < len(words):
            entry, length = self._term_at(words, folded, position)
            if entry is not None:
                span = spans[position][0], spans[position + length - 1][1]
                found.append(TermMatch(span, entry))
            position += length
        return found

    def _term_at(
        self, words: Words, folded: Words, position: int
    ) -> tuple[GlossaryEntry | None, int]:
        """The longest term at a word, and its number of words; None and 1 if there is none.

        Of equally long ones, the one with upper-case letters.
        """
        for length in self._lengths.get(folded[position], ()):
            if position + length > len(words):
                continue
            part = slice(position, position + length)
            entry = self._exact.get(words[part]) or self._any_case.get(folded[part])
            if entry is not None:
                return entry, length
        return None, 1


def check_num_entries(num_entries: int) -> None:
    """Raise InvalidRequest for too many entries of a request."""
    if num_entries > MAX_ENTRIES:
        raise InvalidRequest("glossary_entries", f"at most {MAX_ENTRIES}, got {num_entries}")


def _spaced(term: str) -> str:
    return " ".join(term.split())


def _words(text: str) -> Words:
    return tuple(_normalized(text[start:end]) for start, end in word_spans(text))


def _normalized(word: str) -> str:
    return word if word.isascii() else unicodedata.normalize("NFC", word)


def _folded(words: Words) -> Words:
    return tuple(word.casefold() for word in words)


def _check_term(field: str, term: str) -> None:
    if not term:
        raise InvalidRequest(field, "must not be empty")
    if len(term) > MAX_TERM_CHARACTERS:
        problem = f"at most {MAX_TERM_CHARACTERS} characters, got {len(term)}"
        raise InvalidRequest(field, problem)
