"""Glossaries: terms of a source language, each with one or several translations."""

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from attendant_glossaries import MAX_ENTRIES, GlossaryEntry, GlossaryFault, parsed_entries

from attendant_server.application.held_memory import current_hold
from attendant_server.application.jobs import JobRunner
from attendant_server.application.splitting import Span
from attendant_server.application.words import word_spans
from attendant_server.errors import GlossaryUnreadable, InvalidRequest

Words = tuple[str, ...]

HELD_BYTES_PER_ENTRY, HELD_BYTES_PER_TRANSLATION = 200, 27
"""What the entries of a request count as, beside its bytes, among the requests that are held. Like
those bytes, a third of the memory that they take."""


class TermMatch(NamedTuple):
    """A term in a text."""

    span: Span
    """Its place in the text, in code points."""
    entry: GlossaryEntry


class _Terms:
    """Entries by the words of their terms."""

    def __init__(self, entries: Iterable[GlossaryEntry]) -> None:
        """Of several entries with the same words, the last one counts."""
        # By their words with single spaces: a string takes far less memory than a tuple of words.
        self.exact: dict[str, GlossaryEntry] = {}
        self.any_case: dict[str, GlossaryEntry] = {}
        # Not the terms themselves: thousands of them may begin with the same word.
        self.lengths: dict[str, list[int]] = {}
        for entry in entries:
            words = _words(entry.source)
            folded = _folded(words)
            (self.any_case if words == folded else self.exact)[" ".join(words)] = entry
            lengths = self.lengths.setdefault(folded[0], [])
            if len(words) not in lengths:
                lengths.append(len(words))
        for lengths in self.lengths.values():
            lengths.sort(reverse=True)


class Glossary:
    """Finds the terms of its entries in texts.

    A term is found where all its words stand one after the other. A term in lower case stands for
    its words in any case; a term with an upper-case letter, such as a name, only for itself.
    """

    def __init__(self, entries: Iterable[GlossaryEntry], base: "Glossary | None" = None) -> None:
        """``entries`` come before those of ``base``, which is shared and not copied."""
        self._layers: tuple[_Terms, ...] = (_Terms(entries), *(base._layers if base else ()))

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
        for length in self._lengths(folded[position]):
            if position + length > len(words):
                continue
            part = slice(position, position + length)
            exact, any_case = " ".join(words[part]), " ".join(folded[part])
            found = [terms.exact.get(exact) for terms in self._layers]
            found += [terms.any_case.get(any_case) for terms in self._layers]
            if entry := next(filter(None, found), None):
                return entry, length
        return None, 1

    def _lengths(self, word: str) -> Sequence[int]:
        """The numbers of words of the terms that begin with a word, the largest first."""
        first, *others = (terms.lengths.get(word, ()) for terms in self._layers)
        return sorted({*first, *chain(*others)}, reverse=True) if others else first


def parsed_glossary(name: str, content: bytes) -> Glossary:
    """The glossary ``name`` of the bytes of a file; raises GlossaryUnreadable."""
    try:
        return Glossary(parsed_entries(content))
    except GlossaryFault as fault:
        raise GlossaryUnreadable(f"the glossary {name}: {fault}") from None


async def read_entries(
    jobs: JobRunner, num_entries: int, entries: Iterable[tuple[str, Collection[str]]]
) -> list[GlossaryEntry]:
    """The entries of a request, which count among the bytes that its call holds.

    Raises InvalidRequest for too many or bad ones, and QueueFull if there is no room for them.
    """
    if num_entries > MAX_ENTRIES:
        raise InvalidRequest("glossary_entries", f"at most {MAX_ENTRIES}, got {num_entries}")
    found = await jobs.run_for(num_entries, lambda: request_entries(entries))
    num_translations = sum(len(entry.targets) for entry in found)
    current_hold().hold_more(
        HELD_BYTES_PER_ENTRY * num_entries + HELD_BYTES_PER_TRANSLATION * num_translations
    )
    return found


def request_entries(entries: Iterable[tuple[str, Collection[str]]]) -> list[GlossaryEntry]:
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
