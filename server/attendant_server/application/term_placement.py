"""Where the terms of a glossary stand in a translation, and where missing ones belong."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import NamedTuple

import numpy as np

from attendant_server.application.alignment import WordLink
from attendant_server.application.glossaries import TermMatch
from attendant_server.application.splitting import Span
from attendant_server.application.words import word_spans
from attendant_server.engine.pair_calls import AttentionWeights


class PlacedTerm(NamedTuple):
    """A term of a glossary in a text, and its translation."""

    source: Span
    """The place of the term, in code points."""
    source_term: str
    """The term as the glossary has it."""
    target: Span | None
    """The place of its translation; None if the translation lacks it."""
    target_term: str
    """The translation of the term as the glossary has it; "" if the translation lacks it."""


def placed_terms(
    matches: Sequence[TermMatch], translation: str, links: Sequence[WordLink] = ()
) -> list[PlacedTerm]:
    """The terms of a text and where the translation has them, each at a place of its own.

    ``links`` are those between words of the text and of the translation; a term is preferably
    placed where they lead.
    """
    found: list[tuple[Span, str] | None] = [None] * len(matches)
    occurrences = _occurrences_of_entries(translation, matches)
    is_taken = bytearray(len(translation))

    def place(number: int, candidates: Iterable[tuple[Span, str]]) -> None:
        for (start, end), target in candidates:
            if not any(is_taken[start:end]):
                found[number] = (start, end), target
                is_taken[start:end] = b"\1" * (end - start)
                return

    if links:
        for number, match in enumerate(matches):
            linked = _linked(match.span, links)
            own = occurrences[match.entry.source]
            place(number, (o for o in own if any(_overlap(o[0], each) for each in linked)))
    # An occurrence that was passed over is taken, and stays so: no later match tries it again.
    left = {source: iter(own) for source, own in occurrences.items()}
    for number, match in enumerate(matches):
        if found[number] is None:
            place(number, left[match.entry.source])
    return [
        PlacedTerm(match.span, match.entry.source, *(own_place or (None, "")))
        for match, own_place in zip(matches, found, strict=True)
    ]


def span_of_missing(
    match: TermMatch,
    translation: str,
    links: Sequence[WordLink],
    attention: Callable[[Span], Iterable[tuple[Span, float]]],
    taken: Sequence[Span],
    first: int,
) -> Span:
    """The words of the translation that a missing term replaces, at or after ``first``.

    They begin with the first word that is linked to the term, and end with the last one of those
    that follow it directly. If there is none, it is the word that attends to the term most.
    ``attention`` gives the words of the translation and how much each attends to a part of the
    text. Words in ``taken``, which belong to other terms, are left alone. If no others are left,
    the place is the end of the translation.
    """

    def is_free(span: Span) -> bool:
        return span[0] >= first and not any(_overlap(span, each) for each in taken)

    linked = sorted(span for span in _linked(match.span, links) if is_free(span))
    if linked:
        return _without_gaps(translation, linked)
    free = [(weight, -span[0]) for span, weight in attention(match.span) if is_free(span)]
    place = -max(free)[1] if free else max(first, len(translation.rstrip()))
    start, end = _word_at(translation, place)
    return max(first, start), max(first, end)


def attention_of_words(
    weights: AttentionWeights, source_tokens: Sequence[Span], target_tokens: Sequence[Span]
) -> Callable[[Span], Iterator[tuple[Span, float]]]:
    """How much the tokens of a translation attend to a part of the text.

    ``weights`` (target tokens, source tokens) belong to tokens with the given places.
    """

    def attention(part: Span) -> Iterator[tuple[Span, float]]:
        columns = [i for i, span in enumerate(source_tokens) if _overlap(span, part)]
        of_tokens = np.asarray(weights)[:, columns].sum(axis=1).tolist()
        for span, weight in zip(target_tokens, of_tokens, strict=False):
            if span[0] < span[1]:
                yield span, weight

    return attention


def _without_gaps(translation: str, spans: Sequence[Span]) -> Span:
    """The first of some words and those that follow it with only white space between."""
    start, end = spans[0]
    for next_start, next_end in spans[1:]:
        if translation[end:next_start].strip():
            break
        end = max(end, next_end)
    return start, end


def _word_at(translation: str, place: int) -> Span:
    """The word at ``place``; empty if there is none."""
    for start, end in word_spans(translation):
        if start <= place < end:
            return start, end
    return place, place


def _occurrences_of_entries(
    translation: str, matches: Sequence[TermMatch]
) -> dict[str, list[tuple[Span, str]]]:
    """Where the translation has the targets of each entry, by the term of the entry."""
    spans = word_spans(translation)
    starts, ends = {start for start, _ in spans}, {end for _, end in spans}
    entries = {match.entry.source: match.entry for match in matches}
    return {
        source: _occurrences(translation, starts, ends, entry.targets)
        for source, entry in entries.items()
    }


def _occurrences(
    translation: str, starts: Set[int], ends: Set[int], targets: Sequence[str]
) -> list[tuple[Span, str]]:
    """Where the translation has one of the terms as whole words, in order; longer terms first.

    ``starts`` and ``ends`` are those of the words of the translation.
    """
    found: list[tuple[Span, str]] = []
    for target in dict.fromkeys(targets):
        for variant in {target, target[:1].upper() + target[1:]}:
            start = translation.find(variant)
            while start >= 0:
                end = start + len(variant)
                if start in starts and end in ends:
                    found.append(((start, end), target))
                start = translation.find(variant, start + 1)
    return sorted(found, key=lambda each: (each[0][0], -each[0][1]))


def _linked(span: Span, links: Iterable[WordLink]) -> list[Span]:
    """The words of the translation that are linked to a part of the text."""
    return [link.target for link in links if _overlap(link.source, span)]


def _overlap(one: Span, two: Span) -> bool:
    return one[0] < two[1] and two[0] < one[1]
