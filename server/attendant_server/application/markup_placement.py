"""Puts the inline elements of a segment around the right words of its translation.

Each element comes once. An element gets the run of words that are linked to words inside it;
elements stay inside each other, and never overlap.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from attendant_server.application.alignment import WordLink
from attendant_server.application.markup import Element, Segment, escaped
from attendant_server.application.splitting import Span
from attendant_server.application.words import word_spans

UNLINKED = -0.05
"""The worth of a word without a link within a run: it may fill gaps, and extends no run."""


class _Word(NamedTuple):
    """A word of the translation."""

    span: Span
    source: Span | None
    """The word of the segment that it comes from."""
    weight: float


@dataclass(frozen=True, slots=True)
class _Placed:
    """An element in the translation."""

    element: Element
    span: Span
    """Its place in the translation, in characters."""
    children: Sequence["_Placed"] = ()


def with_elements(segment: Segment, translation: str, links: Sequence[WordLink]) -> str:
    """The translation of a segment, with its markup."""
    if translation == segment.text:
        return segment.source
    words = _words(translation, links)
    placed = _Placement(segment, translation, words).all(segment.elements, (0, len(words)))
    return _rendered(placed, translation, (0, len(translation)))


def _words(translation: str, links: Sequence[WordLink]) -> list[_Word]:
    """The words of the translation, each with its strongest link."""
    spans = word_spans(translation)
    starts = [start for start, _ in spans]
    best: dict[int, WordLink] = {}
    for link in links:
        place = bisect_right(starts, link.target[0]) - 1
        if place >= 0 and (place not in best or link.weight > best[place].weight):
            best[place] = link
    return [
        _Word(span, best[i].source, best[i].weight) if i in best else _Word(span, None, 0.0)
        for i, span in enumerate(spans)
    ]


def _rendered(placed: Sequence[_Placed], text: str, span: Span) -> str:
    parts, last = [], span[0]
    for each in placed:
        start, end = each.span
        content = _rendered(each.children, text, each.span)
        parts += [escaped(text[last:start]), each.element.opening, content, each.element.closing]
        last = end
    return "".join([*parts, escaped(text[last : span[1]])])


class _Placement:
    """The placement of the elements of one segment. Ranges are places of words."""

    def __init__(self, segment: Segment, translation: str, words: Sequence[_Word]) -> None:
        self._text, self._translation, self._words = segment.text, translation, words
        self._source_words = word_spans(segment.text)

    def all(self, elements: Sequence[Element], within: Span) -> list[_Placed]:
        """The elements of one parent, which has the words ``within``, in their new order."""
        taken: list[Span] = []
        placed: list[tuple[Element, Span]] = []
        for element in elements:
            run = None if element.is_empty else self._run(element, within, taken)
            if run is not None:
                taken.append(run)
                placed.append((element, run))
        results = [self._with_words(element, run) for element, run in placed]
        chosen = {id(element) for element, _ in placed}
        for element in elements:
            if id(element) not in chosen:
                place = self._gap(element, within, [each.span for each in results])
                results.append(_without_words(element, place))
        return sorted(results, key=lambda each: each.span)

    def _with_words(self, element: Element, run: Span) -> _Placed:
        span = self._words[run[0]].span[0], self._words[run[1] - 1].span[1]
        return _Placed(element, span, self.all(element.children, run))

    def _run(self, element: Element, within: Span, taken: Sequence[Span]) -> Span | None:
        """The best run of free words for an element; None if no word belongs to it."""
        worths = [self._worth(element, i, taken) for i in range(*within)]
        best, run, total, start = 0.0, None, 0.0, 0
        for i, worth in enumerate(worths):
            if total <= 0:
                total, start = 0.0, i
            total += worth
            if total > best:
                best, run = total, (within[0] + start, within[0] + i + 1)
        return None if run is None else self._extended(element, run, within, taken)

    def _worth(self, element: Element, i: int, taken: Sequence[Span]) -> float:
        if any(start <= i < end for start, end in taken):
            return -1e9
        word = self._words[i]
        if word.source is None:
            return UNLINKED
        is_inside = element.start <= word.source[0] < element.end
        return word.weight if is_inside else -word.weight

    def _extended(self, element: Element, run: Span, within: Span, taken: Sequence[Span]) -> Span:
        """The run with words without links at the ends of a parent whose text it begins or ends."""
        start, end = run
        before = range(within[0], start)
        if self._is_free(before, taken) and not self._text[: element.start].strip():
            start = within[0]
        after = range(end, within[1])
        if self._is_free(after, taken) and not self._text[element.end :].strip():
            end = within[1]
        return start, end

    def _is_free(self, words: range, taken: Sequence[Span]) -> bool:
        return all(
            self._words[i].source is None and not any(a <= i < b for a, b in taken) for i in words
        )

    def _gap(self, element: Element, within: Span, siblings: Sequence[Span]) -> int:
        """The place, in characters, of an element without words."""
        text, start, end = self._text, element.start, element.end
        is_attached = start > 0 and not text[start - 1].isspace()
        if not text[:start].strip():  # white space around a text stays as it is
            place = self._edge(within, 0) if within[0] else start
        elif not text[end:].strip() and within[1] == len(self._words):
            place = len(self._translation) - (len(text) - end)
        elif is_attached and text[end : end + 1].isspace():
            place = self._after(start, within)
        else:
            place = self._before(end, within)
        inside = next((span for span in siblings if span[0] < place < span[1]), None)
        return place if inside is None else inside[1]

    def _after(self, offset: int, within: Span) -> int:
        """The end of the last word that comes from the word of the segment before."""
        sources = [span for span in self._source_words if span[0] < offset]
        for source in reversed(sources):
            found = [i for i in range(*within) if self._words[i].source == source]
            if found:
                return self._words[found[-1]].span[1]
        return self._edge(within, 0)

    def _before(self, offset: int, within: Span) -> int:
        """The start of the first word that comes from the next word of the segment."""
        for source in (span for span in self._source_words if span[0] >= offset):
            found = [i for i in range(*within) if self._words[i].source == source]
            if found:
                return self._words[found[0]].span[0]
        return self._edge(within, 1)

    def _edge(self, within: Span, side: int) -> int:
        """The start (side 0) or the end (side 1) of a range of words."""
        if within[0] == within[1]:
            return (0, len(self._translation))[side]
        return self._words[within[0] if side == 0 else within[1] - 1].span[side]


def _without_words(element: Element, place: int) -> _Placed:
    children = [_without_words(child, place) for child in element.children]
    return _Placed(element, (place, place), children)
