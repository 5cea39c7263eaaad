"""Glossaries: terms of a source language, each with one or several translations."""

import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from attendant_glossaries import MAX_ENTRIES, GlossaryEntry, GlossaryFault, parsed_entries

from attendant_server.application.splitting import Span
from attendant_server.application.words import word_spans
from attendant_server.errors import GlossaryUnreadable, InvalidRequest

Words = tuple[str, ...]


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
        """Of several entries with the same term, the last one counts."""
        self.entries = list({entry.source: entry for entry in entries}.values())
        # By their words with single spaces: a string takes far less memory than a tuple of words.
        self._exact: dict[str, GlossaryEntry] = {}
        self._any_case: dict[str, GlossaryEntry] = {}
        # Not the terms themselves: thousands of them may begin with the same word.
        self._lengths: dict[str, list[int]] = {}
        for entry in self.entries:
            words = _words(entry.source)
            folded = _folded(words)
            (self._any_case if words == folded else self._exact)[" ".join(words)] = entry
            lengths = self._lengths.setdefault(folded[0], [])
            if len(words) not in lengths:
                lengths.append(len(words))
        for lengths in self._lengths.values():
            lengths.sort(reverse=True)

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
            entry = self._exact.get(" ".join(words[part]))
            entry = entry or self._any_case.get(" ".join(folded[part]))
            if entry is not None:
                return entry, length
        return None, 1


def parsed_glossary(name: str, content: bytes) -> Glossary:
    """The glossary ``name`` of the bytes of a file; raises GlossaryUnreadable."""
    try:
        return Glossary(parsed_entries(content))
    except GlossaryFault as fault:
        raise GlossaryUnreadable(f"the glossary {name}: {fault}") from None


def check_num_entries(num_entries: int) -> None:
    """Raise InvalidRequest for too many entries of a request."""
    if num_entries > MAX_ENTRIES:
        raise InvalidRequest("glossary_entries", f"at most {MAX_ENTRIES}, got {num_entries}")


def request_entries(entries: Iterable[tuple[str, Iterable[str]]]) -> list[GlossaryEntry]:
    """The entries of a request, terms with their translations; raises InvalidRequest."""
    try:
        return [
            GlossaryEntry.of(source, targets, f"glossary_entries[{i}]")
            for i, (source, targets) in enumerate(entries)
        ]
    except GlossaryFault as fault:
        raise InvalidRequest(fault.field, fault.problem) from None


def _words(text: str) -> Words:
    return tuple(_normalized(text[start:end]) for start, end in word_spans(text))


def _normalized(word: str) -> str:
    return word if word.isascii() else unicodedata.normalize("NFC", word)


def _folded(words: Words) -> Words:
    return tuple(word.casefold() for word in words)
