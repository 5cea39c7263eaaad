"""The words of a text, in any script."""

import re
import unicodedata
from functools import cache
from itertools import chain

from attendant_server.application.splitting import Span
from attendant_server.streamed_text import UNSPACED

_JOINERS = "\u200c\u200d"
"""Characters without width that stand inside words."""
_PLANES_WITH_MARKS = range(0x20000), range(0xE0100, 0xE01F0)
"""Code points among which all combining marks are."""


def word_spans(text: str) -> list[Span]:
    """The places of the words of a text, in order, as offsets in code points.

    A word is a run of letters and digits with their combining marks, possibly with apostrophes
    inside, a single character of a script without spaces, or a single other sign.
    """
    return [match.span() for match in _words().finditer(text)]


@cache
def _words() -> re.Pattern[str]:
    unspaced, mark = UNSPACED.pattern, f"[{_JOINERS}{_marks()}]"
    letter = rf"(?!{unspaced})\w"
    letters = rf"{letter}(?:{letter}|{mark})*"
    return re.compile(rf"{unspaced}{mark}*|{letters}(?:['\u2019]{letters})*|[^\w\s]{mark}*")


def _marks() -> str:
    """All combining marks, which the classes of ``re`` lack."""
    return "".join(
        chr(code)
        for code in chain(*_PLANES_WITH_MARKS)
        if unicodedata.category(chr(code)).startswith("M")
    )
