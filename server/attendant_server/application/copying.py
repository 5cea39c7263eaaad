"""Parts of a text that are copied into its translation instead of being translated.

These are addresses, telephone numbers, long numbers and codes, characters that the model lacks,
such as emoji, and parts without any letter, such as numbers and lines of dashes. A model would
invent something for them.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from attendant_server.application.alignment import WordLink
from attendant_server.application.linked_words import LinkedWords
from attendant_server.application.splitting import Span, trimmed

_NAMES_OF_THINGS = re.compile(
    r"""
    (?:https?://|ftp://|www\.)[^\s<>"]*[^\s<>".,;:!?)\]}'\u2019\u201d\u00bb]  # URLs
    | [\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[\w-]{2,63}  # e-mail addresses
    | (?<![\w+])\+[0-9](?:[ ()./-]{0,2}[0-9]){6,14}(?!\w)  # telephone numbers by E.164
    | (?<![\w-])(?:\([0-9]{3}\)\ ?|[0-9]{3}[.-])[0-9]{3}[.-][0-9]{4}(?![\w-])  # North American ones
    | (?<![\w.,+-])[0-9]{7,64}(?![\w-]|[.,][0-9])  # long numbers
    | (?<![\w-])(?=[0-9-]{0,64}[A-Z])(?=(?:[A-Z-]{0,64}[0-9]){4})
      [A-Z0-9](?:-?[A-Z0-9]){5,63}(?![\w-])  # codes such as an IBAN, with at least four digits
    """,
    re.VERBOSE,
)
"""Names that no model can translate, without punctuation after them."""
_SIGNS_OF_ADDRESSES = ("://", "www.", "@")
_FOUR_DIGITS = re.compile(r"[0-9](?:[^0-9\s]{0,16}\s?[^0-9\s]?[0-9]){3}")
"""What telephone numbers, long numbers and codes have."""
_JOINERS = frozenset("\u200d\ufe0e\ufe0f\u20e3")
"""Characters that join emoji, or change the way they look."""
_WORD_END = re.compile(r"(?<=\S)(?!\S)|(?<=\w)(?!\w)|(?<=[(\[{])|(?<=[\u2e80-\ua4cf])")
_MARK = re.compile(r"[^\w\s]")
MAX_MARKS = 8
"""Marks after a base that may compose with it."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A part of a text that its translation contains as it is."""

    offset: int
    """Where it belongs in the text to translate, from which it was removed."""
    text: str
    """The part, with the white space before it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text that is translated at once, such as a sentence."""

    start: int
    """Its first character in the whole text, in code points."""
    end: int
    """Its end (exclusive)."""
    text: str
    """The text to translate, without the copies."""
    copies: Sequence[Copy] = ()

    @property
    def has_inner_copies(self) -> bool:
        """Whether words follow a copy, so that it may belong elsewhere in the translation."""
        return bool(self.copies) and _has_words(self.text[self.copies[0].offset :])

    def with_copies(self, translation: str, places: Sequence[int]) -> str:
        """The translation with the copies at their ``places``, those of `places_of_copies`."""
        parts, last = [], 0
        for place, copy in zip(places, self.copies, strict=True):
            parts += [translation[last:place], copy.text]
            last = place
        return "".join([*parts, translation[last:]])

    def places_of_copies(self, translation: str, links: Sequence[WordLink] = ()) -> list[int]:
        """Where each copy belongs in the translation, in ascending order: at ends of words.

        A copy follows the translation of the word before it, by the ``links`` between words of
        ``text`` and of the translation. If that word has moved to the end, such as a German verb, a
        copy comes before the translation of the next word. Without links, a copy stands at about
        the same place as in the text.
        """
        if not self.copies:
            return []
        places: list[int] = []
        word_ends = [match.start() for match in _WORD_END.finditer(translation)]
        content_end = _content_end(translation)
        linked = LinkedWords(translation, list(self._links_of_same_kind(translation, links)))
        for copy in self.copies:
            wanted = self._place_in(translation, copy, linked, content_end)
            last = places[-1] if places else 0
            later = (end for end in word_ends if end >= last)
            places.append(min(later, key=lambda end: abs(end - wanted), default=len(translation)))
        return places

    def source_span(self, span: Span) -> Span:
        """The place in the whole text of a part of ``text``."""
        places = [copy.offset for copy in self.copies]
        return _after_insertions(span, places, self._lengths(), self.start)

    def target_span(self, span: Span, places: Sequence[int]) -> Span:
        """The place in the translation with copies of a part of the translation without them.

        ``places`` are those of `places_of_copies`.
        """
        return _after_insertions(span, places, self._lengths())

    def _lengths(self) -> list[int]:
        return [len(copy.text) for copy in self.copies]

    def _links_of_same_kind(
        self, translation: str, links: Sequence[WordLink]
    ) -> Iterator[WordLink]:
        """The links but those of a word and a mark, such as a comma that the source lacks."""
        for link in links:
            source, target = self.text[slice(*link.source)], translation[slice(*link.target)]
            if _has_words(source) == _has_words(target):
                yield link

    def _place_in(
        self, translation: str, copy: Copy, linked: LinkedWords, content_end: int
    ) -> float:
        """Where a copy belongs; ``content_end`` is the end of the translation without its marks."""
        if not _has_words(self.text[copy.offset :]):
            return content_end
        place = _linked_place(copy, linked, content_end)
        if place is None:
            return copy.offset / len(self.text) * len(translation)
        return len(translation[:place].rstrip())


def _linked_place(copy: Copy, linked: LinkedWords, content_end: int) -> int | None:
    """The place of a copy by the links of the words beside it; None if these have none.

    The translation without marks at its end ends at ``content_end``.
    """
    before, after = linked.before(copy.offset), linked.after(copy.offset)
    word = None if before is None else linked.words[before]
    if not copy.text[0].isspace():  # it belongs to the sign before it, such as a bracket
        is_beside = word is not None and word.source is not None and word.source[1] == copy.offset
        return word.span[1] if word is not None and is_beside else None
    if word is not None and word.span[1] < content_end:
        return word.span[1]
    return None if after is None else linked.words[after].span[0]


def _content_end(translation: str) -> int:
    """The end of a translation without the marks at its end, such as a full stop."""
    end = len(translation)
    while end > 0 and _MARK.match(translation, end - 1):
        end -= 1
    return end


def _has_words(text: str) -> bool:
    return any(map(str.isalnum, text))


def _after_insertions(
    span: Span, places: Sequence[int], lengths: Sequence[int], first: int = 0
) -> Span:
    """The place of a part of a text after insertions; the text then begins at ``first``.

    An insertion at the beginning of the part comes before it, one at its end after it.
    """
    inserted = list(zip(places, lengths, strict=True))
    start, end = span
    before_start = sum(length for place, length in inserted if place <= start)
    before_end = sum(length for place, length in inserted if place < end)
    return first + start + before_start, first + end + max(before_start, before_end)


def piece(text: str, span: Span, can_read: Callable[[str], bool]) -> Piece | None:
    """The part of a text to translate, without the copies around it; None if nothing is left.

    ``can_read`` says whether the model can read all characters of a text.
    """
    content = text[slice(*span)]
    if can_read(content) and not _may_have_names(content):
        span = trimmed(text, span)
        return Piece(*span, content.strip()) if any(map(str.isalpha, content)) else None
    copied = list(_copied(text, span, can_read))
    start, end = span
    while copied and not text[start : copied[0][0]].strip():
        start = copied.pop(0)[1]
    while copied and not text[copied[-1][1] : end].strip():
        end = copied.pop()[0]
    start, end = trimmed(text, (start, end))
    parts, copies, last, length = [], [], start, 0
    for copy_start, copy_end in copied:
        before = text[last:copy_start].rstrip()
        parts.append(before)
        length += len(before)
        copies.append(Copy(length, text[last + len(before) : copy_end]))
        last = copy_end
    to_translate = "".join([*parts, text[last:end]])
    if not any(map(str.isalpha, to_translate)):
        return None
    return Piece(start, end, to_translate, copies)


def _may_have_names(content: str) -> bool:
    """Whether a text may have a part that `_NAMES_OF_THINGS` finds; quick."""
    has_address = any(sign in content for sign in _SIGNS_OF_ADDRESSES)
    return has_address or _FOUR_DIGITS.search(content) is not None


def _copied(text: str, span: Span, can_read: Callable[[str], bool]) -> Iterator[Span]:
    """The parts to copy, in order and apart from each other."""
    start, end = span
    last = start
    for name in _NAMES_OF_THINGS.finditer(text, start, end):
        yield from _unreadable(text, (last, name.start()), can_read)
        yield name.span()
        last = name.end()
    yield from _unreadable(text, (last, end), can_read)


def _unreadable(text: str, span: Span, can_read: Callable[[str], bool]) -> Iterator[Span]:
    """Runs of characters that the model lacks, with the joiners among them."""
    start, end = span
    if can_read(text[start:end]):
        return
    last = start
    for i in range(start, end):
        if i < last or text[i].isspace() or _is_read(text, i, can_read):
            continue
        begin = _cluster_start(text, i, last)
        last = i + 1
        while last < end and _continues(text, last, can_read):
            last += 1
        yield begin, last


def _is_read(text: str, i: int, can_read: Callable[[str], bool]) -> bool:
    """Whether the model can read a character, or what a mark and its base compose.

    No letter has more than `MAX_MARKS` marks; without this limit, a run of marks would take
    quadratic time.
    """
    if can_read(text[i]):
        return True
    base, least = i, max(0, i - MAX_MARKS)
    while base > least and unicodedata.combining(text[base]):
        base -= 1
    return base < i and can_read(text[base : i + 1])


def _cluster_start(text: str, i: int, least: int) -> int:
    """The base of a mark at ``i``, such as the digit of a keycap, else ``i``."""
    while i > least and (text[i] in _JOINERS or unicodedata.category(text[i]).startswith("M")):
        i -= 1
    return i


def _continues(text: str, i: int, can_read: Callable[[str], bool]) -> bool:
    """Whether the character belongs to the characters before it, which are copied."""
    is_unreadable = not (text[i].isspace() or _is_read(text, i, can_read))
    return is_unreadable or text[i] in _JOINERS or text[i - 1] == "\u200d"
