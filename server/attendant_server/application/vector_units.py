"""Parts of a text that have vectors of their own: its tokens, its words, or spans of a caller."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from attendant_server.application.offset_units import TextOffsets
from attendant_server.application.splitting import Span
from attendant_server.application.validation import known_value
from attendant_server.application.words import word_spans
from attendant_server.errors import InvalidRequest
from attendant_server.tokenized_text import TokenizedText


class VectorUnit(IntEnum):
    """The parts of a text that have vectors; numbered as in the contract."""

    TOKENS = 1
    WORDS = 2
    SPANS = 3


class TokenPlaces:
    """The places of the tokens of a text that stand for a part of it."""

    def __init__(self, text: TokenizedText) -> None:
        plain = [
            (row, token)
            for row, token in enumerate(text)
            if not token.is_special and token.start < token.end
        ]
        self.rows = [row for row, _ in plain]
        """The numbers of these tokens among all tokens of the text."""
        self._starts = list(accumulate((token.start for _, token in plain), max))
        self._ends = list(accumulate((token.end for _, token in plain), max))

    def within(self, span: Span) -> range:
        """Indices into ``rows`` of the tokens that share a character with the span."""
        return range(bisect_right(self._ends, span[0]), bisect_left(self._starts, span[1]))


@dataclass(frozen=True, slots=True)
class TokenGroups:
    """Spans of a text and their tokens. The vector of a span is the mean of those of its tokens."""

    spans: Sequence[Span]
    rows: Sequence[int]
    """The tokens that stand for a part of the text."""
    ranges: Sequence[range]
    """The tokens of each span, as indices into ``rows``; none is empty."""

    def __len__(self) -> int:
        """Number of spans."""
        return len(self.spans)

    @property
    def num_tokens(self) -> list[int]:
        """Number of tokens of each span."""
        return list(map(len, self.ranges))

    def means(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean (spans, d) of the vectors (tokens, d) of each span's tokens."""
        sums = np.zeros((len(self.rows) + 1, vectors.shape[1]), np.float64)
        np.cumsum(vectors[self.rows], axis=0, dtype=np.float64, out=sums[1:])
        begins = np.array([each.start for each in self.ranges], np.int64)
        ends = np.array([each.stop for each in self.ranges], np.int64)
        counts = (ends - begins)[:, None]
        return np.asarray((sums[ends] - sums[begins]) / counts, np.float32)


@dataclass(frozen=True, slots=True)
class GroupedText:
    """What is known of a text before its tokens are grouped."""

    sent: str
    read: TokenizedText
    """The tokens that the model reads."""
    shown: TokenizedText
    """The tokens with vectors, which may be fewer."""
    offsets: TextOffsets
    """Converts the offsets of given spans."""

    def groups(self, number: int, spans: Sequence[Span] | None) -> TokenGroups:
        """The tokens of the given spans, or of all words; raises InvalidRequest.

        ``number`` is that of the text, for messages. The spans of the result are in code points.
        Words without a token, or of which truncation dropped a token, are left out.
        """
        shown, lost = TokenPlaces(self.shown), self._lost()
        if spans is not None:
            found = [
                (span, shown.within(span))
                for span in self._checked(spans, f"spans[{number}].spans", shown, lost)
            ]
        else:
            words = ((span, shown.within(span)) for span in word_spans(self.sent))
            found = [(s, tokens) for s, tokens in words if tokens and not _has_lost(s, lost)]
        return TokenGroups([s for s, _ in found], shown.rows, [tokens for _, tokens in found])

    def _checked(
        self,
        spans: Sequence[Span],
        field: str,
        shown: TokenPlaces,
        lost: TokenPlaces | None,
    ) -> Iterator[Span]:
        length = self.offsets.length
        for i, (start, end) in enumerate(spans):
            if not start < end <= length:
                problem = f"must have start < end <= {length}, got {start} and {end}"
                raise InvalidRequest(f"{field}[{i}]", problem)
            begin, stop = map(self.offsets.in_code_points, (start, end))
            if begin is None or stop is None:
                raise InvalidRequest(f"{field}[{i}]", "must not begin or end inside a character")
            span = begin, stop
            if _has_lost(span, lost):
                raise InvalidRequest(f"{field}[{i}]", "lost tokens to truncation")
            if not shown.within(span):
                raise InvalidRequest(f"{field}[{i}]", "has no token")
            yield span

    def _lost(self) -> TokenPlaces | None:
        """The tokens that truncation dropped; None if there are none."""
        if len(self.read) >= self.read.num_original_tokens:
            return None
        kept = set(self.read.positions)
        dropped = [i for i in range(len(self.read.encoding)) if i not in kept]
        return TokenPlaces(replace(self.shown, positions=dropped))


def _has_lost(span: Span, lost: TokenPlaces | None) -> bool:
    return lost is not None and bool(lost.within(span))


def chosen_unit(unit: int, spans: Sequence[Sequence[Span]], num_texts: int) -> VectorUnit:
    """The unit that a request chooses; raises InvalidRequest, also for spans that do not suit it.

    ``unit`` is a number of `VectorUnit`, 0 for the default; ``spans`` has those of each text.
    """
    chosen = known_value("unit", unit, VectorUnit.TOKENS)
    num_expected = num_texts if chosen is VectorUnit.SPANS else 0
    if len(spans) != num_expected:
        problem = "are for the unit of spans only"
        if num_expected:
            problem = f"needs an entry for each of {num_texts} texts"
        raise InvalidRequest("spans", f"{problem}, got {len(spans)}")
    return chosen
