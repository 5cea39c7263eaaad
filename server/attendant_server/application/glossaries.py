"""Glossaries: terms of a source language, each with one or several translations."""

import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from attendant_glossaries import MAX_ENTRIES, GlossaryEntry, GlossaryFault, parsed_entries

from attendant_server.application.held_memory import current_hold
from attendant_server.application.jobs import JobRunner
from attendant_server.application.splitting import Span
from attendant_server.application.words import word_spans
from attendant_server.errors import GlossaryUnreadable, InvalidRequest

Words = tuple[str, ...]
TermLength: TypeAlias = tuple[GlossaryEntry | None, int]
"""A term and its number of words; None and 0 for none."""

HELD_BYTES_PER_ENTRY, HELD_BYTES_PER_TRANSLATION = 200, 27
"""What the entries of a request count as, beside its bytes, among the requests that are held. Like
those bytes, a third of the memory that they take."""


class TermMatch(NamedTuple):
    """A term in a text."""

    span: Span
    """Its place in the text, in code points."""
    entry: GlossaryEntry


class _Terms:
    """Entries by the words of their terms; finds the longest term that a text has at a place.

    The time for that hardly depends on the number of terms and of their words: in the order of the
    alphabet, all terms with which a text begins are in one chain of terms, each of which begins
    with the next, and the last term that is not after the text is in front of that chain.
    """

    def __init__(self, entries: Mapping[str, GlossaryEntry]) -> None:
        """The keys are those of `_key`."""
        self._keys = sorted(entries)
        self._entries = [entries[key] for key in self._keys]
        self._max_characters = max(map(len, self._keys), default=0)
        self._shorter = array("i")
        """For each term, the longest other one with which it begins; -1 for none."""
        chain: list[int] = []
        for number, key in enumerate(self._keys):
            while chain and not key.startswith(self._keys[chain[-1]]):
                chain.pop()
            self._shorter.append(chain[-1] if chain else -1)
            chain.append(number)

    def longest_at(self, words: str, start: int) -> TermLength:
        """The longest term at character ``start`` of ``words``, which `_key` has made."""
        part = words[start : start + self._max_characters]
        number = bisect_right(self._keys, part) - 1
        while number >= 0 and not part.startswith(self._keys[number]):
            number = self._shorter[number]
        return (None, 0) if number < 0 else (self._entries[number], self._keys[number].count(" "))


class Glossary:
    """Finds the terms of its entries in texts.

    A term is found where all its words stand one after the other. A term in lower case stands for
    its words in any case; a term with an upper-case letter, such as a name, only for itself.
    """

    def __init__(self, entries: Iterable[GlossaryEntry], base: "Glossary | None" = None) -> None:
        """``entries`` come before those of ``base``, which is shared and not copied.

        Of several entries with the same words, the last one counts.
        """
        exact: dict[str, GlossaryEntry] = {}
        any_case: dict[str, GlossaryEntry] = {}
        for entry in entries:
            words = _words(entry.source)
            (any_case if words == _folded(words) else exact)[_key(words)] = entry
        self._exact: tuple[_Terms, ...] = (_Terms(exact), *(base._exact if base else ()))
        self._any_case: tuple[_Terms, ...] = (_Terms(any_case), *(base._any_case if base else ()))

    def matches(self, text: str) -> list[TermMatch]:
        """The terms in a text, in order and without overlaps; longer ones win over shorter ones.

        Of equally long ones, the one with upper-case letters wins.
        """
        spans = word_spans(text)
        words = tuple(_normalized(text[start:end]) for start, end in spans)
        folded = _folded(words)
        exact_key, folded_key = _key(words), _key(folded)
        starts = list(zip(_starts(words), _starts(folded), strict=True))
        found: list[TermMatch] = []
        position = 0
        while position < len(words):
            exact_start, folded_start = starts[position]
            terms = [each.longest_at(exact_key, exact_start) for each in self._exact]
            terms += [each.longest_at(folded_key, folded_start) for each in self._any_case]
            entry, length = max(terms, key=itemgetter(1))
            if entry is not None:
                span = spans[position][0], spans[position + length - 1][1]
                found.append(TermMatch(span, entry))
            position += max(1, length)
        return found


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


def _key(words: Words) -> str:
    """Words as one string, in which only a whole word is followed by a space.

    It takes far less memory than a tuple of words.
    """
    return "".join(f"{word} " for word in words)


def _starts(words: Words) -> Iterable[int]:
    """Where each word begins in the key of all, and where the key ends."""
    return accumulate((len(word) + 1 for word in words), initial=0)
