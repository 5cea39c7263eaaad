"""Texts with markup: segments of plain text to translate, and the markup around and inside them.

A segment is the text between the tags of blocks, such as paragraphs, with all inline elements. It
is translated as one text without its tags, which are then put around the right words.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

from attendant_server.application.markup_tokens import Kind, MarkupToken, tokens

MAX_DEPTH = 64
"""Inline elements inside each other. Tags of further ones are elements without text."""
INLINE_ELEMENTS = frozenset(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark math "  # noqa: SIM905
    "meter q ruby rb rp rt s samp small span strike strong sub sup svg time tt u var wbr".split()
)
"""HTML elements within a line of text."""
KEPT_ELEMENTS = frozenset(
    ("code", "kbd", "samp", "var", "sub", "sup", "math", "svg", "pre", "script", "style")
)
"""HTML elements whose content is not translated."""
_KEPT = re.compile(
    r"\stranslate\s*=\s*[\"']?no\b|\sclass\s*=\s*(?:\"[^\"]*|'[^']*|)\bnotranslate\b", re.IGNORECASE
)


@dataclass(slots=True)
class Element:
    """An inline element, or a part that is copied as it is."""

    opening: str
    """Its first tag, or the whole source of a part without text to translate."""
    start: int
    """Its place in the plain text of the segment."""
    end: int = -1
    closing: str = ""
    children: list["Element"] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether it has no text."""
        return self.start == self.end


@dataclass(slots=True)
class Segment:
    """A text to translate, with its inline elements."""

    text: str
    """The characters of the text, without tags and character references."""
    elements: list[Element]
    """The outermost elements, in order."""
    source: str
    """The segment as sent."""


Part: TypeAlias = str | Segment
"""Markup between segments, as it is, or a segment."""


def segments(source: str, is_html: bool) -> list[Part]:
    """The parts of a text with markup, in order; their sources are the text to the letter."""
    found = _kept_joined(list(tokens(source, is_html)), is_html)
    are_inline = _are_inline(found, is_html)
    parts: list[Part] = []
    for is_inline, group in groupby(zip(found, are_inline, strict=True), key=lambda pair: pair[1]):
        run = [token for token, _ in group]
        if is_inline and any(token.kind is Kind.TEXT and token.text.strip() for token in run):
            parts.append(_segment(run))
        else:
            parts.append("".join(token.source for token in run))
    return parts


def escaped(text: str) -> str:
    """Plain text as markup."""
    return html.escape(text, quote=False)


def _kept_joined(found: Sequence[MarkupToken], is_html: bool) -> list[MarkupToken]:
    """The tokens, with each element that is not translated as one token of its own."""
    joined, kept, depth, name = list[MarkupToken](), list[MarkupToken](), 0, ""
    for token in found:
        if depth:
            kept.append(token)
            if token.name == name:
                depth += (token.kind is Kind.OPEN) - (token.kind is Kind.CLOSE)
            if not depth:
                joined.append(_kept(kept, name))
        elif token.kind is Kind.OPEN and _is_kept(token, is_html):
            kept, depth, name = [token], 1, token.name
        else:
            joined.append(token)
    return joined + (kept if depth else [])


def _is_kept(token: MarkupToken, is_html: bool) -> bool:
    return (is_html and token.name in KEPT_ELEMENTS) or bool(_KEPT.search(token.source))


def _kept(group: Sequence[MarkupToken], name: str) -> MarkupToken:
    return MarkupToken(Kind.EMPTY, "".join(token.source for token in group), name)


def _are_inline(found: Sequence[MarkupToken], is_html: bool) -> list[bool]:
    """Whether each token belongs to a line of text.

    HTML says so by names. In XML, an element is inline if text stands beside it in its parent.
    """
    if is_html:
        return [
            token.kind in (Kind.TEXT, Kind.OTHER) or token.name in INLINE_ELEMENTS
            for token in found
        ]
    parents, stack, with_text = list[int](), [-1], {-1: False}
    for i, token in enumerate(found):
        if token.kind is Kind.CLOSE and len(stack) > 1:
            stack.pop()
        parents.append(stack[-1])
        if token.kind is Kind.TEXT and token.text.strip():
            with_text[stack[-1]] = True
        if token.kind is Kind.OPEN:
            stack.append(i)
            with_text[i] = False
    return [
        token.kind is Kind.TEXT or with_text[parent]
        for token, parent in zip(found, parents, strict=True)
    ]


def _ends_with_space(text: str, stack: Sequence[Element]) -> bool:
    """Whether white space ends a text to which no other element has been attached."""
    places = [stack[-1].start, *(child.end for child in stack[-1].children[-1:])]
    return text[-1:].isspace() and max(places) < len(text)


def _segment(run: Sequence[MarkupToken]) -> Segment:
    """The segment of a run of tokens; white space around its text belongs to it."""
    text, root = "", Element("", 0)
    stack, names = [root], [""]
    for token in run:
        if token.kind is Kind.TEXT:
            text += token.text
        elif token.kind is Kind.OPEN and len(stack) <= MAX_DEPTH:
            element = Element(token.source, len(text))
            stack[-1].children.append(element)
            stack.append(element)
            names.append(token.name)
        elif token.kind is Kind.CLOSE and token.name == names[-1] and len(stack) > 1:
            element = stack.pop()
            names.pop()
            element.end, element.closing = len(text), token.source
        else:  # also an end tag whose element began before this run
            space = text[-1:] if token.kind is Kind.EMPTY and _ends_with_space(text, stack) else ""
            text = text.removesuffix(space)
            stack[-1].children.append(Element(space + token.source, len(text), len(text)))
    while len(stack) > 1:  # an element whose end tag comes after this run
        element = stack.pop()
        element.end = element.start
        stack[-1].children += element.children
        element.children = []
    return Segment(text, root.children, "".join(token.source for token in run))
