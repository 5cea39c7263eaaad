"""Normalization of texts before tokenization, with offsets that refer to the text as sent.

It composes characters canonically (NFC), removes invisible characters inside words, and replaces
characters that the tokenizer lacks by equal or similar ones that it has. Texts that need nothing of
this are recognized quickly and left as they are. Knows no tokenizers and no requests.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

MAX_REMEMBERED = 16_384
"""Characters that a normalizer remembers, so that no caller can fill the memory."""
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


class TextNormalizer:
    """Normalizes texts for one tokenizer. Safe to use from several threads."""

    def __init__(self, is_known: Callable[[str], bool]) -> None:
        """``is_known`` says whether the tokenizer has a token for a character."""
        self._is_known = is_known
        self._replacements: dict[str, str] = {}
        """The replacements of characters that occurred; most are the character itself."""
        self._plain: set[str] = set()
        """Characters that occurred, and are known or white space, so that they stay."""

    def normalize(self, text: str) -> NormalizedText | None:
        """The normalized text, or None if it is the text itself."""
        if text.isascii() and text.isprintable():
            return None
        is_composed = unicodedata.is_normalized("NFC", text)
        if is_composed and all(self._replacement(each) == each for each in self._unusual(text)):
            return None
        characters, starts, ends = [], [], []
        for start, end in _clusters(text, is_composed):
            composed = unicodedata.normalize("NFC", text[start:end])
            new = "".join(map(self._replacement, composed))
            characters.append(new)
            starts += [start] * len(new)
            ends += [end] * len(new)
        return NormalizedText("".join(characters), starts, ends)

    def can_read(self, text: str) -> bool:
        """Whether the tokenizer knows all characters of a text, or what stands for them.

        The text is composed first, so a mark after its base counts as the composed character.
        """
        return not self._unusual(text) or all(
            self._is_plain(each)
            for character in self._unusual(unicodedata.normalize("NFC", text))
            for each in self._replacement(character)
        )

    def _unusual(self, text: str) -> set[str]:
        """The characters that may need a replacement."""
        return set() if self._plain.issuperset(text) else set(text) - self._plain

    def _replacement(self, character: str) -> str:
        """What stands for a character, itself if it is known or if nothing known is similar."""
        found = self._replacements.get(character)
        if found is None:
            if len(self._replacements) >= MAX_REMEMBERED:
                self._replacements.clear()
            found = self._replacements[character] = self._find(character)
        return found

    def _find(self, character: str) -> str:
        if character in _ALWAYS_REMOVED:
            return ""
        if character.isascii() and character.isprintable():
            return character  # as in texts that have only such characters
        if self._is_plain(character):
            return character
        for candidate in _candidates(character):
            if candidate != character and all(map(self._is_plain, candidate)):
                return candidate
        return character

    def _is_plain(self, character: str) -> bool:
        if character in self._plain:
            return True
        if character in _ALWAYS_REMOVED or not (character.isspace() or self._is_known(character)):
            return False
        if len(self._plain) < MAX_REMEMBERED:
            self._plain.add(character)
        return True


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
