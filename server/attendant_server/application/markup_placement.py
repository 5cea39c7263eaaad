"""Puts the inline elements of a segment around the right words of its translation.

Each element comes once. An element gets the run of words that are linked to words inside it;
elements stay inside each other, and never overlap.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from attendant_server.application.alignment import WordLink
from attendant_server.application.linked_words import LinkedWords
from attendant_server.application.markup import Element, Segment, escaped
from attendant_server.application.splitting import Span

UNLINKED = -0.05
"""The worth of a word without a link within a run: it may fill gaps, and extends no run."""


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
    linked = LinkedWords(translation, links)
    placed = _Placement(segment, translation, linked).all(segment.elements, (0, len(linked.words)))
    return _rendered(placed, translation, (0, len(translation)))


def _rendered(placed: Sequence[_Placed], text: str, span: Span) -> str:
    parts, last = [], span[0]
    for each in placed:
        start, end = each.span
        content = _rendered(each.children, text, each.span)
        parts += [escaped(text[last:start]), each.element.opening, content, each.element.closing]
        last = end
    return "".join([*parts, escaped(text[last : span[1]])])


class _Placement:
    """The placement of the elements of one segment. Ranges are places of words.

    Links stay within sentences, so the time is about linear in the length of the segment.
    """

    def __init__(self, segment: Segment, translation: str, linked: LinkedWords) -> None:
        text = segment.text
        self._text, self._translation = text, translation
        self._linked, self._words = linked, linked.words
        self._first, self._last = len(text) - len(text.lstrip()), len(text.rstrip())

    def all(self, elements: Sequence[Element], within: Span) -> list[_Placed]:
        """The elements of one parent, which has the words ``within``, in their new order."""
        taken: set[int] = set()
        with_words: list[_Placed] = []
        without: list[Element] = []
        for element in elements:
            run = None if element.is_empty else self._run(element, within, taken)
            if run is None:
                without.append(element)
            else:
                taken.update(range(*run))
                span = self._words[run[0]].span[0], self._words[run[1] - 1].span[1]
                with_words.append(_Placed(element, span, self.all(element.children, run)))
        spans = sorted(each.span for each in with_words)
        alone = [_without_words(each, self._gap(each, within, spans)) for each in without]
        return sorted(with_words + alone, key=lambda each: each.span)

    def _run(self, element: Element, within: Span, taken: Collection[int]) -> Span | None:
        """The best run of free words for an element; None if no word belongs to it."""
        linked = self._linked.inside((element.start, element.end))
        own = [i for i in linked if within[0] <= i < within[1] and i not in taken]
        if not own:
            return None
        first = min(own)
        best, run, total, start = 0.0, (first, first + 1), 0.0, first
        for i in range(first, max(own) + 1):
            if total <= 0:
                total, start = 0.0, i
            total += self._worth(element, i, taken)
            if total > best:
                best, run = total, (start, i + 1)
        return self._extended(element, run, within, taken)

    def _worth(self, element: Element, i: int, taken: Collection[int]) -> float:
        if i in taken:
            return -1e9
        word = self._words[i]
        if word.source is None:
            return UNLINKED
        is_inside = element.start <= word.source[0] < element.end
        return word.weight if is_inside else -word.weight

    def _extended(self, element: Element, run: Span, within: Span, taken: Collection[int]) -> Span:
        """The run, with the words without links up to an end of the segment that it reaches."""
        start, end = run
        if element.start <= self._first and self._is_free(range(within[0], start), taken):
            start = within[0]
        if element.end >= self._last and self._is_free(range(end, within[1]), taken):
            end = within[1]
        return start, end

    def _is_free(self, words: range, taken: Collection[int]) -> bool:
        return all(self._words[i].source is None and i not in taken for i in words)

    def _gap(self, element: Element, within: Span, siblings: Sequence[Span]) -> int:
        """The place, in characters, of an element without words, outside of its siblings."""
        text, start, end = self._text, element.start, element.end
        is_attached = start > 0 and not text[start - 1].isspace()
        if start <= self._first:  # white space around a text stays as it is
            place = self._edge(within, 0) if within[0] else start
        elif end >= self._last and within[1] == len(self._words):
            place = len(self._translation) - (len(text) - end)
        elif is_attached and text[end : end + 1].isspace():
            place = self._beside(self._linked.before(start), within, 1)
        else:
            place = self._beside(self._linked.after(end), within, 0)
        last = bisect_left(siblings, (place, 0)) - 1
        return siblings[last][1] if last >= 0 and place < siblings[last][1] else place

    def _beside(self, word: int | None, within: Span, side: int) -> int:
        """The start (side 0) or the end (side 1) of a linked word, or of the words ``within``."""
        if word is not None and within[0] <= word < within[1]:
            return self._words[word].span[side]
        return self._edge(within, 1 - side)

    def _edge(self, within: Span, side: int) -> int:
        """The start (side 0) or the end (side 1) of a range of words."""
        if within[0] == within[1]:
            return (0, len(self._translation))[side]
        return self._words[within[0] if side == 0 else within[1] - 1].span[side]


def _without_words(element: Element, place: int) -> _Placed:
    children = [_without_words(child, place) for child in element.children]
    return _Placed(element, (place, place), children)
