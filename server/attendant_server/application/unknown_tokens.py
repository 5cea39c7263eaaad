"""Unknown tokens of a translation, replaced by the source text that the aligner links to them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from attendant_server.application.alignment import WordLink, links, token_spans
from attendant_server.application.piece_alignment import source_spans
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.splitting import Span, trimmed
from attendant_server.application.words import word_spans
from attendant_server.engine.pair_calls import AttentionWeights
from attendant_server.streamed_text import UNSPACED
from attendant_server.tokenizer import TextTokenizer

_CLOSING = frozenset(".,;:!?)]}%\u2026")
"""Signs that a space follows."""


class Replacement(NamedTuple):
    """A part of a source and its place in the translation."""

    source: Span
    target: Span


class FilledTranslation(NamedTuple):
    """The translation of a piece without unknown tokens."""

    text: str
    token_spans: list[Span]
    """The place of each token of the translation; empty for a token without text."""
    replacements: list[Replacement]
    """The parts of the piece that have replaced unknown tokens, in order."""


def filled(
    tokenizer: TextTokenizer,
    source_unknown: int | None,
    text: PiecedText,
    number: int,
    token_ids: Sequence[int],
    weights: AttentionWeights,
) -> FilledTranslation:
    """The translation of piece ``number`` with source text in the place of its unknown tokens.

    ``tokenizer`` is that of translations, and ``source_unknown`` the unknown token of sources.
    ``weights`` are those of the tokens. An unknown token gets the word that it is linked to, or, if
    it stands within the translation of that word, the characters of its unknown token. Several in a
    row that are linked to the same text get it once.
    """
    marked = tokenizer.decode_with_unknown(token_ids)
    spans = token_spans(tokenizer.decode_with_unknown, token_ids, marked)
    source = _Source(text, number, source_unknown)
    unknown = [i for i, token_id in enumerate(token_ids) if token_id == tokenizer.unk_id]
    parts = source.parts(weights, marked, spans, unknown)
    return _Filling(source.text, marked, spans, tokenizer.marks_word_ends).with_parts(
        dict(zip(unknown, parts, strict=True))
    )


class _Source:
    """The tokens of a piece, from which unknown tokens of its translation come."""

    def __init__(self, text: PiecedText, number: int, unknown: int | None) -> None:
        self.text = text.pieces[number].text
        self._spans = [trimmed(self.text, span) for span in source_spans(text, number)]
        self._words = word_spans(self.text)
        self._is_unknown = [token_id == unknown for token_id in text.token_ids[number]]

    def parts(
        self,
        weights: AttentionWeights,
        marked: str,
        spans: Sequence[Span],
        unknown: Sequence[int],
    ) -> Iterator[Span]:
        """The part of the piece for each of the ``unknown`` tokens of a translation.

        ``marked`` is the translation with a text for each unknown token, and ``spans`` are the
        places of its tokens. An unknown token is a part of a word if a word that touches it comes
        from the same word of the piece: a tokenizer that has swallowed a space leaves none between
        words, and one that knows only parts of words leaves none within them.
        """
        taken = [spans[i] for i in unknown]
        words = word_spans(_blanked(marked, taken))
        found = _best_links(links(weights, self._spans, self._words, spans, sorted(words + taken)))
        beside = _words_beside(marked, taken, words)
        for i in unknown:
            token = self._best_token(np.asarray(weights)[i], found.get(spans[i]))
            if token is None:
                yield (0, 0)
                continue
            own = self._words_of(self._spans[token])
            sources = [found.get(word) for word in beside[spans[i]]]
            is_alone = not any(source is None or source in own for source in sources)
            yield self._part(token, is_alone)

    def _best_token(self, attention: AttentionWeights, within: Span | None) -> int | None:
        """The token of the piece with the most attention, among those of a word if given."""
        own = [
            i
            for i, span in enumerate(self._spans)
            if span[0] < span[1] and (within is None or _overlap(span, within))
        ]
        return max(
            own,
            key=lambda i: (self._is_unknown[i] and within is not None, attention[i]),
            default=None,
        )

    def _part(self, token: int, is_alone: bool) -> Span:
        """The text of a token, with the words to which it belongs if ``is_alone`` or known."""
        start, end = self._spans[token]
        if self._is_unknown[token]:
            start, end = self._run(token)
            if not is_alone:
                return start, end
        own = self._words_of((start, end))
        return min([start, *(s for s, _ in own)]), max([end, *(e for _, e in own)])

    def _words_of(self, span: Span) -> list[Span]:
        """The words of the piece that a part of it overlaps."""
        return [word for word in self._words if _overlap(word, span)]

    def _run(self, token: int) -> Span:
        """The text of an unknown token and of those that touch it."""
        first, last = token, token
        while first > 0 and self._touch(first - 1, first):
            first -= 1
        while last + 1 < len(self._spans) and self._touch(last, last + 1):
            last += 1
        return self._spans[first][0], self._spans[last][1]

    def _touch(self, one: int, two: int) -> bool:
        are_unknown = self._is_unknown[one] and self._is_unknown[two]
        return are_unknown and self._spans[one][1] == self._spans[two][0]


class _Filling:
    """Puts parts of a piece in the place of unknown tokens."""

    def __init__(
        self, source: str, marked: str, spans: Sequence[Span], marks_word_ends: bool
    ) -> None:
        self._source, self._marked, self._spans = source, marked, spans
        self._marks_word_ends = marks_word_ends
        self._text = ""
        self._last = 0
        """The end, in the marked text, of what has been written."""
        self._ends_word = False
        """Whether the text ends with a word whose end no token marks."""

    def with_parts(self, parts: dict[int, Span]) -> FilledTranslation:
        """The translation with the part of each unknown token; the keys are numbers of tokens."""
        spans: list[Span] = []
        replacements: list[Replacement] = []
        for i, (start, end) in enumerate(self._spans):
            if i not in parts:
                self._write(end)
                moved = len(self._text) - self._last
                spans.append((start + moved, end + moved))
                continue
            is_same = bool(replacements) and replacements[-1].source == parts[i]
            if is_same and not self._marked[self._last : start].strip():
                self._last = max(self._last, end)
                spans.append((len(self._text),) * 2)
                continue
            self._write(start)
            spans.append(self._put(parts[i], end))
            replacements.append(Replacement(parts[i], spans[-1]))
        self._write(len(self._marked))
        return FilledTranslation(self._text, spans, replacements)

    def _write(self, end: int) -> None:
        text = self._marked[self._last : end]
        if self._ends_word and text[:1].isalnum():
            self._text += " "
        self._ends_word &= not text
        self._text += text
        self._last = max(self._last, end)

    def _put(self, part: Span, end: int) -> Span:
        """Write a part of the piece, with the spaces that it needs; returns its place."""
        content = self._source[slice(*part)]
        if self._needs_space(part, content):
            self._text += " "
        place = len(self._text), len(self._text) + len(content)
        self._text += content
        self._last = end
        ends_word = not self._source[part[1] : part[1] + 1].isalnum()
        self._ends_word = self._marks_word_ends and ends_word
        return place

    def _needs_space(self, part: Span, content: str) -> bool:
        last = self._text[-1:]
        before = self._source[: part[0]][-1:]
        begins_word = not before.isalnum() or UNSPACED.match(before) is not None
        ends_word = last.isalnum() or last in _CLOSING
        return bool(content) and begins_word and ends_word and not UNSPACED.match(last)


def _best_links(found: Iterator[WordLink]) -> dict[Span, Span]:
    """The source of the strongest link of each target."""
    best: dict[Span, WordLink] = {}
    for link in found:
        if link.target not in best or link.weight > best[link.target].weight:
            best[link.target] = link
    return {target: link.source for target, link in best.items()}


def _blanked(text: str, spans: Sequence[Span]) -> str:
    """A text with spaces in the place of parts of it."""
    for start, end in spans:
        text = f"{text[:start]}{' ' * (end - start)}{text[end:]}"
    return text


def _words_beside(
    text: str, spans: Sequence[Span], words: Sequence[Span]
) -> dict[Span, list[Span]]:
    """The words that touch each of these parts of a text, which are in order.

    Parts that touch each other are one. Signs, such as punctuation marks, are left out.
    """
    runs: list[list[Span]] = []
    for span in spans:
        if runs and runs[-1][-1][1] == span[0]:
            runs[-1].append(span)
        else:
            runs.append([span])
    letters = [word for word in words if text[word[0]].isalnum()]
    found: dict[Span, list[Span]] = {}
    for run in runs:
        beside = [word for word in letters if word[1] == run[0][0] or word[0] == run[-1][1]]
        found |= dict.fromkeys(run, beside)
    return found


def _overlap(one: Span, two: Span) -> bool:
    return one[0] < two[1] and two[0] < one[1]
