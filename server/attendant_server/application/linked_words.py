"""The words of a translation, each with the word of the source that it comes from."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from attendant_server.application.alignment import WordLink
from attendant_server.application.splitting import Span
from attendant_server.application.words import word_spans


class LinkedWord(NamedTuple):
    """A word of a translation."""

    span: Span
    source: Span | None
    """The word of the source that it comes from; None without a link."""
    weight: float


class LinkedWords:
    """The words of a translation, each with its strongest link. Words are told by their indices."""

    def __init__(self, translation: str, links: Sequence[WordLink]) -> None:
        self.words = _words(translation, links)
        self._linked = sorted(
            (word.source[0], i) for i, word in enumerate(self.words) if word.source is not None
        )
        """The start of each linked word of the source, and the word of the translation."""

    def inside(self, source: Span) -> Iterator[int]:
        """The words that come from words inside a part of the source."""
        for k in range(bisect_left(self._linked, (source[0], -1)), len(self._linked)):
            start, i = self._linked[k]
            if start >= source[1]:
                return
            yield i

    def before(self, place: int) -> int | None:
        """The word that comes from the last linked word before a place in the source."""
        k = bisect_left(self._linked, (place, -1)) - 1
        return self._linked[k][1] if k >= 0 else None

    def after(self, place: int) -> int | None:
        """The word that comes from the first linked word at or after a place in the source."""
        k = bisect_left(self._linked, (place, -1))
        return self._linked[k][1] if k < len(self._linked) else None


def _words(translation: str, links: Sequence[WordLink]) -> list[LinkedWord]:
    spans = word_spans(translation)
    starts = [start for start, _ in spans]
    best: dict[int, WordLink] = {}
    for link in links:
        place = bisect_right(starts, link.target[0]) - 1
        if place >= 0 and (place not in best or link.weight > best[place].weight):
            best[place] = link
    return [
        LinkedWord(span, best[i].source, best[i].weight) if i in best else LinkedWord(span, None, 0)
        for i, span in enumerate(spans)
    ]
