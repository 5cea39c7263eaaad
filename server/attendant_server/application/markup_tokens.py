"""Tokens of HTML and XML: tags, comments and text, which together are the source to the letter.

Nothing is corrected: tags that do not fit together stay where they are. The time is linear in the
length of the source, whatever it contains.
"""

import html
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

_NAME = re.compile(r"</?([A-Za-z][^\s/>\"'<]*)")
_MARKS = re.compile(r"[\"'>]")
_SECTIONS = (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"), ("<!", ">"))
_RAW_ELEMENTS = frozenset(("script", "style", "textarea", "title"))
"""HTML elements whose content has no tags; that of the first two is never text."""
VOID_ELEMENTS = frozenset(
    "area base br col embed hr img input keygen link meta param source track wbr".split()  # noqa: SIM905
)
"""HTML elements without content and end tag."""


class Kind(Enum):
    """The kind of a token."""

    TEXT = auto()
    OPEN = auto()
    CLOSE = auto()
    EMPTY = auto()
    """A tag that is a whole element."""
    OTHER = auto()
    """A comment, a declaration, or another section without text."""


@dataclass(frozen=True, slots=True)
class MarkupToken:
    """A part of the source."""

    kind: Kind
    source: str
    name: str = ""
    """The name of a tag, in lower case in HTML."""

    @property
    def text(self) -> str:
        """The characters that a token of text stands for."""
        return html.unescape(self.source)


def tokens(source: str, is_html: bool) -> Iterator[MarkupToken]:
    """The tokens of a source, in order."""
    tags = _Tags(source, is_html)
    start, place = 0, source.find("<")
    while place >= 0:
        found = _section(source, place) or tags.at(place)
        if found is None:
            place = source.find("<", place + 1)
            continue
        if start < place:
            yield MarkupToken(Kind.TEXT, source[start:place])
        yield found
        start = place + len(found.source)
        if is_html and found.kind is Kind.OPEN and found.name in _RAW_ELEMENTS:
            end = _end_of_raw(source, found.name, start)
            if start < end:
                is_text = found.name in ("textarea", "title")
                yield MarkupToken(Kind.TEXT if is_text else Kind.OTHER, source[start:end])
            start = end
        place = source.find("<", start)
    if start < len(source):
        yield MarkupToken(Kind.TEXT, source[start:])


def _section(source: str, place: int) -> MarkupToken | None:
    for opening, closing in _SECTIONS:
        if source.startswith(opening, place):
            end = source.find(closing, place + len(opening))
            # Without an end, the rest is one section. So the rest is searched once only.
            stop = len(source) if end < 0 else end + len(closing)
            return MarkupToken(Kind.OTHER, source[place:stop])
    return None


class _Tags:
    """The tags of a source. Finds the ends of all possible tags once, from the last one back."""

    def __init__(self, source: str, is_html: bool) -> None:
        self._source, self._is_html = source, is_html
        marks = list(_MARKS.finditer(source))
        self._places = [mark.start() for mark in marks]
        self._ends = [0] * (len(marks) + 1)
        """The end of a tag whose next mark outside of quotes is this one; 0: it does not end."""
        next_of_kind: dict[str, int] = {}
        for i in range(len(marks) - 1, -1, -1):
            kind = marks[i].group()
            if kind == ">":
                self._ends[i] = marks[i].end()
            elif kind in next_of_kind:
                self._ends[i] = self._ends[next_of_kind[kind] + 1]
            next_of_kind[kind] = i

    def at(self, place: int) -> MarkupToken | None:
        """The tag that begins at a place."""
        name = _NAME.match(self._source, place)
        if name is None:
            return None
        end = self._ends[bisect_left(self._places, name.end())]
        return _tag_token(self._source[place:end], name.group(1), self._is_html) if end else None


def _tag_token(source: str, name: str, is_html: bool) -> MarkupToken:
    name = name.lower() if is_html else name
    if source.startswith("</"):
        return MarkupToken(Kind.CLOSE, source, name)
    is_empty = name in VOID_ELEMENTS if is_html else source.endswith("/>")
    return MarkupToken(Kind.EMPTY if is_empty else Kind.OPEN, source, name)


def _end_of_raw(source: str, name: str, start: int) -> int:
    end = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(source, start)
    return len(source) if end is None else end.start()
