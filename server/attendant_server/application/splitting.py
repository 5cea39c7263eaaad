"""Splitting of texts into lines and sentences, which are translated independently."""

import re
from collections.abc import Iterator
from itertools import pairwise

import sentencex

from attendant_server.application.descriptions import Splitting

Span = tuple[int, int]
"""Start and end (exclusive) of a part of a text, in code points."""

_LINE_ENDS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
_NO_SENTENCE = re.compile(r"\W*+\w?+\W*+")
"""Too little to be a sentence: at most one letter or digit, as in the initial of a name."""
_MAY_END_SENTENCE = re.compile(r"[^\w\s,;:'\"\u2019()/-]")
_WORD = re.compile(r"\w")
_CLAUSE_ENDS = re.compile(r"[,;:\u2013\u2014)\]]\s+|[\u3001\uff0c\uff1b\uff1a\u060c\u061b]")
_SPACES = re.compile(r"\s+")
_ENDS_AFTER_WORDS = {
    language: re.compile(rf"\b(?:{words})\.[\"'\u201c\u201d\u2019)]*\s+(?=\W*[A-Z\u00c0-\u00de])")
    for language, words in {"en": "me|no|ill|art|miss|OK", "de": "mich|mag|OK"}.items()
}
"""Ends of sentences after words that the library takes for abbreviations, such as "Me." for Maine.

One in forty English sentences of Tatoeba ends with such a word.
"""


def spans(text: str, splitting: Splitting, language: str) -> list[Span]:
    """The parts of a text, in order and without the white space around them; none is empty.

    ``language`` is a BCP 47 tag, whose rules for abbreviations apply; "" for rules of all
    languages. With `Splitting.NONE`, the one part is the whole text with the white space around it.
    """
    if not text.strip():
        return []
    if splitting is Splitting.NONE:
        return [(0, len(text))]
    is_line = _LINE_ENDS.search(text) is None
    if is_line and (splitting is Splitting.LINES or _is_one_sentence(text)):
        return [trimmed(text, (0, len(text)))]
    parts = _lines(text)
    if splitting is Splitting.SENTENCES:
        parts = (part for line in parts for part in _sentences(text, line, language))
    return [part for part in (trimmed(text, part) for part in parts) if part[0] < part[1]]


def clause_end(text: str, start: int, limit: int) -> int:
    """Where to end a part of a text that begins at ``start`` and may reach ``limit``.

    After its last clause, if that leaves more than a third of it, else after its last word, else at
    the limit.
    """
    for pattern, first in ((_CLAUSE_ENDS, start + (limit - start) // 3), (_SPACES, start + 1)):
        ends = [match.end() for match in pattern.finditer(text, first, limit)]
        if ends:
            return ends[-1]
    return limit


def trimmed(text: str, part: Span) -> Span:
    """The part of a text without the white space around it."""
    start, end = part
    if not (text[start : start + 1].isspace() or text[end - 1 : end].isspace()):
        return part
    content = text[start:end]
    left = len(content) - len(content.lstrip())
    return start + left, start + max(left, len(content.rstrip()))


def _lines(text: str) -> Iterator[Span]:
    start = 0
    for line_end in _LINE_ENDS.finditer(text):
        yield start, line_end.start()
        start = line_end.end()
    yield start, len(text)


def _is_one_sentence(line: str) -> bool:
    """Whether a line has no sign that may end a sentence before its last word.

    Most texts are one sentence. The library would release the interpreter lock for them, too, and
    the event loop would wait for it as long as for a step of the engine.
    """
    mark = _MAY_END_SENTENCE.search(line)
    return mark is None or not _WORD.search(line, mark.end())


def _sentences(text: str, line: Span, language: str) -> Iterator[Span]:
    content = text[slice(*line)]
    if _is_one_sentence(content):
        yield line
        return
    first_subtag = re.split("[-_]", language, maxsplit=1)[0].lower()
    found = sentencex.get_sentence_boundaries(first_subtag, content)
    candidates = {boundary["start_index"] for boundary in found}
    if ends := _ENDS_AFTER_WORDS.get(first_subtag):
        candidates |= {end.end() for end in ends.finditer(content)}
    starts = [0]
    for start in sorted(candidates):
        if not _NO_SENTENCE.fullmatch(content, starts[-1], start):
            starts.append(start)
    for start, end in pairwise([*starts, len(content)]):
        yield line[0] + start, line[0] + end
