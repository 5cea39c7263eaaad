"""How much of a text that is still being decoded can be sent, so that nothing sent is ever wrong.

Two questions: whether a tokenizer's decoder leaves the text of earlier tokens alone, and where the
last complete word of a text ends. Knows the decoders of the ``tokenizers`` library by their
definitions, and runs nothing of it.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

_TOKEN_DECODERS = frozenset(("Replace", "Strip", "Metaspace", "WordPiece", "CTC", "ByteFallback"))
"""Decoders that turn each token into a text of its own, which later tokens do not change."""
_JOINING_DECODERS = frozenset(("BPEDecoder", "ByteLevel", "Fuse"))
"""Decoders after which the last text may grow, so that no decoder of tokens may follow."""
_UNSPACED = re.compile(
    "["
    "\u0e00-\u109f"  # Thai, Lao, Tibetan, Myanmar
    "\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf"  # Khmer, Tai Le, New Tai Lue, Tai Tham
    "\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaadf"  # Balinese, Javanese, Myanmar, Tai Viet
    "\u2e80-\u312f\u3190-\ua4cf"  # Chinese, Japanese, Yi, and their punctuation
    "\uf900-\ufaff\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uff9f"  # compatible and wide forms
    "\U00016fe0-\U00018dff\U0001aff0-\U0001b2ff\U00020000-\U0003ffff"  # rare ideographs and kana
    "]"
)
"""A character of a script that is written without spaces between words."""
_EXTENDING_CATEGORIES = frozenset(("Mn", "Mc", "Me", "Cf"))
_EXTENDING = frozenset("\u0e33\u0eb3\uff9e\uff9f")
"""Letters that continue the character before them: two vowels, two marks of voiced sounds."""
_JOINERS = frozenset("\u200d\u2060")
_VIRAMA = 9
"""The combining class of marks that may join the letters on both sides of them."""


def only_appends(decoder: Mapping[str, Any] | None) -> bool:
    """Whether what more tokens decode to always begins with what fewer tokens decode to.

    ``decoder`` is the decoder of a tokenizer.json. Unfinished bytes at the end, which decode to
    U+FFFD, and a run of byte tokens at the end (``<0x41>``) are not considered: callers leave both
    out. False for decoders that are not known.
    """
    are_joined = False
    for step in _steps(decoder):
        kind = step.get("type")
        if kind not in _TOKEN_DECODERS | _JOINING_DECODERS:
            return False
        if are_joined and not _keeps_joined_text(step):
            return False
        if kind == "Strip" and step["stop"]:  # The library panics where a text is shorter.
            return False
        are_joined = are_joined or kind in _JOINING_DECODERS
    return True


def _steps(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if decoder is None:
        return
    if decoder.get("type") == "Sequence":
        for step in decoder["decoders"]:
            yield from _steps(step)
    else:
        yield decoder


def _keeps_joined_text(step: Mapping[str, Any]) -> bool:
    """Whether a step over a text that still grows changes nothing before the new part."""
    if step["type"] == "Replace":  # A longer pattern may begin before the new part.
        return len(step["pattern"].get("String", "")) == 1
    return step["type"] in ("Fuse", "Strip")


def complete_words(text: str) -> str:
    """The beginning of a growing text up to the end of its last complete word, without white space.

    A word is complete when white space follows. In scripts that are written without spaces each
    character counts as a word, and is complete when the next one follows that is no part of it.
    """
    for end in range(len(text) - 1, 0, -1):
        if _ends_word(text[end - 1], text[end]):
            return text[:end].rstrip()
    return ""


def _ends_word(last: str, following: str) -> bool:
    if following.isspace():
        return True
    if not (_UNSPACED.match(last) or _UNSPACED.match(following)):
        return False
    is_continued = (
        following in _EXTENDING or unicodedata.category(following) in _EXTENDING_CATEGORIES
    )
    is_joined = last in _JOINERS or unicodedata.combining(last) == _VIRAMA
    return not (is_continued or is_joined)
