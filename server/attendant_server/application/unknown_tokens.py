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
    it stands within a word, the characters of the unknown token of the source. Several in a row
    that are linked to the same text get it once.
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
        places of its tokens.
        """
        taken = [spans[i] for i in unknown]
        words = [word for word in word_spans(marked) if not any(_overlap(word, t) for t in taken)]
        found = _best_links(links(weights, self._spans, self._words, spans, sorted(words + taken)))
        for i in unknown:
            within = found.get(spans[i])
            token = self._best_token(np.asarray(weights)[i], within)
            is_alone = _is_alone(marked, spans[i])
            yield (0, 0) if token is None else self._part(token, is_alone)

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
        own = [word for word in self._words if _overlap(word, (start, end))]
        return min([start, *(s for s, _ in own)]), max([end, *(e for _, e in own)])

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

    def with_parts(self, parts: dict[int, Span]) -> FilledTranslation:
        """The translation with the part of each unknown token; the keys are numbers of tokens."""
        spans: list[Span] = []
        replacements: list[Replacement] = []
        for i, (start, end) in enumerate(self._spans):
            if i not in parts:
                moved = len(self._text) - self._last
                self._write(end)
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
        self._text += self._marked[self._last : end]
        self._last = max(self._last, end)

    def _put(self, part: Span, end: int) -> Span:
        """Write a part of the piece, with the spaces that it needs; returns its place."""
        content = self._source[slice(*part)]
        if self._needs_space(part, content):
            self._text += " "
        place = len(self._text), len(self._text) + len(content)
        self._text += content
        self._last = end
        following = self._marked[end : end + 1]
        ends_word = not self._source[part[1] : part[1] + 1].isalnum()
        if self._marks_word_ends and ends_word and following.isalnum():
            self._text += " "
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


def _is_alone(text: str, span: Span) -> bool:
    """Whether no letters or digits are beside a part of a text."""
    before, after = text[: span[0]][-1:], text[span[1] :][:1]
    return not (before.isalnum() or after.isalnum())


def _overlap(one: Span, two: Span) -> bool:
    return one[0] < two[1] and two[0] < one[1]
