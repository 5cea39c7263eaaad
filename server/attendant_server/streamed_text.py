"""Decides how much of a text can be sent during decoding, without later corrections.

It answers two questions: whether a tokenizer's decoder can change the text of earlier tokens, and
where the last complete word of a text ends. Knows the definitions of decoders of the ``tokenizers``
library, but does not use the library.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

_TOKEN_DECODERS = frozenset(("Replace", "Strip", "Metaspace", "WordPiece", "CTC", "ByteFallback"))
"""Decoders that decode each token separately, so that later tokens do not change its text."""
_JOINING_DECODERS = frozenset(("BPEDecoder", "ByteLevel", "Fuse"))
"""Decoders that join tokens. The last text may grow, so no decoder of tokens may follow."""
UNSPACED = re.compile(
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
"""Letters that continue the character before them: two vowels and two voiced sound marks."""
_JOINERS = frozenset("\u200d\u2060")
_VIRAMA = 9
"""The combining class of marks that may join the letters before and after them."""


def only_appends(decoder: Mapping[str, Any] | None) -> bool:
    """Whether additional tokens only append to the decoded text of the tokens before.

    ``decoder`` is the decoder of a tokenizer.json. Incomplete bytes at the end, which decode to
    U+FFFD, and byte tokens at the end (``<0x41>``) are not considered: callers exclude both. False
    for unknown decoders.
    """
    are_joined = False
    for step in _steps(decoder):
        kind = step.get("type")
        if kind not in _TOKEN_DECODERS | _JOINING_DECODERS:
            return False
        if are_joined and not _keeps_joined_text(step):
            return False
        if kind == "Strip" and step["stop"]:  # The library panics if a text is shorter.
            return False
        are_joined = are_joined or kind in _JOINING_DECODERS
    return True


def marks_word_ends(decoder: Mapping[str, Any] | None) -> bool:
    """Whether the decoder of a tokenizer.json puts spaces after tokens that end words."""
    return any(step.get("type") == "BPEDecoder" for step in _steps(decoder))


def _steps(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if decoder is None:
        return
    if decoder.get("type") == "Sequence":
        for step in decoder["decoders"]:
            yield from _steps(step)
    else:
        yield decoder


def _keeps_joined_text(step: Mapping[str, Any]) -> bool:
    """Whether a decoder, applied to a growing text, changes only the new part."""
    if step["type"] == "Replace":  # A longer pattern could match across the start of the new part.
        return len(step["pattern"].get("String", "")) == 1
    return step["type"] in ("Fuse", "Strip")


def complete_words(text: str) -> str:
    """The prefix of a growing text up to the end of its last complete word, right-stripped.

    A word is complete when white space follows. In scripts written without spaces, each character
    counts as a word. It is complete when a character follows that does not extend it.
    """
    for end in range(len(text) - 1, 0, -1):
        if _ends_word(text[end - 1], text[end]):
            return text[:end].rstrip()
    return ""


def _ends_word(last: str, following: str) -> bool:
    if following.isspace():
        return True
    if not (UNSPACED.match(last) or UNSPACED.match(following)):
        return False
    is_continued = (
        following in _EXTENDING or unicodedata.category(following) in _EXTENDING_CATEGORIES
    )
    is_joined = last in _JOINERS or unicodedata.combining(last) == _VIRAMA
    return not (is_continued or is_joined)
