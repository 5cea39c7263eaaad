"""Normalization of texts before tokenization, with offsets that refer to the text as sent.

It composes characters canonically (NFC), removes invisible characters inside words, and replaces
characters that the tokenizer lacks by equal or similar ones that it has. Texts that need nothing of
this are recognized quickly and left as they are. Knows no tokenizers and no requests.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_ALWAYS_REMOVED = frozenset("\u00ad\u034f\u180e\u200b\u2060\ufeff")
"""Soft hyphens, and characters without width that no script needs."""
_INVISIBLE = frozenset(("Cc", "Cf"))
_VARIATION_SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
_SIMILAR = {
    character: replacement
    for characters, replacement in (
        ("\u2018\u2019\u201a\u201b\u2032\u2035\u2039\u203a\u02bc\u00b4", "'"),
        ("\u201c\u201d\u201e\u201f\u2033\u2036\u00ab\u00bb\u301d\u301e\u301f", '"'),
        ("\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\u2e3a\u2e3b", "-"),
        ("\u2026\u22ef", "..."),
        ("\u2044\u2215", "/"),
        ("\u3002", "."),
        ("\u3001\u060c", ","),
        ("\u061f", "?"),
    )
    for character in characters
}
"""Punctuation, and the ASCII characters that stand for it."""


@dataclass(frozen=True, slots=True)
class NormalizedText:
    """A normalized text, with the place of each of its characters in the text as sent."""

    text: str
    starts: Sequence[int]
    """For each character, the offset in code points at which its original begins, ascending."""
    ends: Sequence[int]
    """For each character, the offset at which its original ends (exclusive)."""

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The offsets in the text as sent of a part of the normalized text."""
        if start < end:
            return self.starts[start], self.ends[end - 1]
        place = self.starts[start] if start < len(self.starts) else self.ends[-1] if start else 0
        return place, place

    def normalized_offset(self, offset: int) -> int:
        """The first offset in the normalized text whose original is not before ``offset``."""
        return bisect_right(self.starts, offset - 1)


class TextNormalizer:
    """Normalizes texts for one tokenizer. Safe to use from several threads."""

    def __init__(self, is_known: Callable[[str], bool]) -> None:
        """``is_known`` says whether the tokenizer has a token for a character."""
        self._is_known = is_known
        self._replacements: dict[str, str] = {}
        """The replacements of the characters that occurred; most are the character itself."""
        self._known: dict[str, bool] = {}

    def normalize(self, text: str) -> NormalizedText | None:
        """The normalized text, or None if it is the text itself."""
        if text.isascii() and text.isprintable():
            return None
        is_composed = unicodedata.is_normalized("NFC", text)
        if is_composed and all(self.replacement(each) == each for each in set(text)):
            return None
        characters, starts, ends = [], [], []
        for start, end in _clusters(text, is_composed):
            composed = unicodedata.normalize("NFC", text[start:end])
            new = "".join(map(self.replacement, composed))
            characters.append(new)
            starts += [start] * len(new)
            ends += [end] * len(new)
        return NormalizedText("".join(characters), starts, ends)

    def replacement(self, character: str) -> str:
        """What stands for a character, itself if it is known or if nothing known is similar."""
        found = self._replacements.get(character)
        if found is None:
            found = self._replacements[character] = self._find(character)
        return found

    def can_read(self, character: str) -> bool:
        """Whether the tokenizer knows a character, or what stands for it."""
        return all(map(self._is_readable, self.replacement(character)))

    def _find(self, character: str) -> str:
        if character in _ALWAYS_REMOVED:
            return ""
        if character.isascii() and character.isprintable():
            return character  # as in texts that have only such characters
        if self._is_readable(character):
            return character
        for candidate in _candidates(character):
            if candidate != character and all(map(self._is_readable, candidate)):
                return candidate
        return character

    def _is_readable(self, character: str) -> bool:
        found = self._known.get(character)
        if found is None:
            found = self._known[character] = character.isspace() or self._is_known(character)
        return found


def _candidates(character: str) -> Iterator[str]:
    """Texts that may stand for an unknown character, the most similar first."""
    if unicodedata.category(character) in _INVISIBLE or _is_variation_selector(character):
        yield ""
    if character in _SIMILAR:
        yield _SIMILAR[character]
    compatible = unicodedata.normalize("NFKC", character)
    yield compatible
    yield "".join(_SIMILAR.get(each, each) for each in compatible)
    decomposed = unicodedata.normalize("NFKD", character)
    without_marks = "".join(each for each in decomposed if not unicodedata.combining(each))
    if without_marks:
        yield without_marks


def _is_variation_selector(character: str) -> bool:
    return any(ord(character) in selectors for selectors in _VARIATION_SELECTORS)


def _clusters(text: str, is_composed: bool) -> Iterator[tuple[int, int]]:
    """The start and end of each shortest part of the text that is composed independently."""
    if is_composed:
        yield from ((i, i + 1) for i in range(len(text)))
        return
    start = 0
    for i in range(1, len(text)):
        if not _composes(text[start:i], text[i]):
            yield start, i
            start = i
    yield start, len(text)


def _composes(before: str, character: str) -> bool:
    """Whether composition of a text may change ``before`` when ``character`` follows."""
    if unicodedata.combining(character):
        return True
    if character.isascii():
        return False
    joined = unicodedata.normalize("NFC", before + character)
    return joined != unicodedata.normalize("NFC", before) + unicodedata.normalize("NFC", character)
