"""Translations of whole texts, joined from those of their pieces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import TypeAlias, TypeVar

from attendant_server.application.alignment import WordLink
from attendant_server.application.glossaries import Glossary
from attendant_server.application.piece_alignment import gap_links, piece_links
from attendant_server.application.piece_terms import piece_terms
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.splitting import Span
from attendant_server.application.term_placement import PlacedTerm
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    TruncationReport,
)
from attendant_server.application.written_pieces import PieceWriter, WrittenPiece
from attendant_server.engine.calls import Hypothesis
from attendant_server.engine.pair_calls import AttentionWeights
from attendant_server.engine.search import length_penalized
from attendant_server.errors import InvalidRequest

Part = TypeVar("Part")
Attention: TypeAlias = Sequence[Sequence[AttentionWeights | None]]
"""The weights of the hypotheses of each piece, None where nothing needs them; or of no piece."""
HYPOTHESIS_SIZE = 10
"""The work of writing a hypothesis without its tokens, as a number of tokens in an answer."""
NO_TRANSLATION = "has no translation with the tokens that its options allow"


@dataclass(frozen=True, slots=True)
class SentencePair:
    """A sentence of a text and its translation, as offsets in code points."""

    source: Span
    """Its place in the text as sent."""
    target: Span
    """The place of its translation in the translation of the text."""


@dataclass(frozen=True, slots=True)
class TranslationHypothesis:
    """One translation of a text; tokens and sentences are empty unless the request wants them."""

    text: str
    score: float
    is_complete: bool
    """True if the end tokens of all sentences were decoded."""
    is_loop: bool = False
    """Whether a sentence repeated itself and was ended."""
    num_avoided_repetitions: int = 0
    """How many times sentences began to repeat themselves and went on with another token."""
    sentences: Sequence[SentencePair] = ()
    alignments: Sequence[WordLink] = ()
    """Links between words of the translation and of the text, in the order of the translation."""
    glossary_terms: Sequence[PlacedTerm] = ()
    """The terms of the glossary that the text has, in its order."""
    num_replaced: int = 0
    """Number of unknown tokens that source text has replaced."""
    token_ids: Sequence[int] = ()
    token_texts: Sequence[str] = ()
    """The tokens as the vocabulary writes them."""
    log_probabilities: Sequence[float] = ()

    @property
    def num_places(self) -> int:
        """Number of its sentences, links and terms."""
        return len(self.sentences) + len(self.alignments) + len(self.glossary_terms)


@dataclass(frozen=True, slots=True)
class Translation:
    """The result for one text: hypotheses, best first."""

    hypotheses: Sequence[TranslationHypothesis]
    num_source_tokens: int
    num_unknown_tokens: int
    """Source tokens that stand for text that the vocabulary lacks."""
    truncation: TruncationReport | None

    @property
    def size(self) -> int:
        """The work of writing it into an answer, as a number of tokens."""
        return sum(
            HYPOTHESIS_SIZE + len(each.token_ids) + each.num_places for each in self.hypotheses
        )

    @property
    def num_places(self) -> int:
        """Number of sentences, links and terms of all hypotheses."""
        return sum(each.num_places for each in self.hypotheses)


@dataclass(frozen=True, slots=True)
class Joiner:
    """Joins the hypotheses of pieces to translations of whole texts."""

    writer: PieceWriter
    tokenization: TokenizationOptions
    length_penalty: float
    return_tokens: bool
    return_sentences: bool
    return_alignments: bool = False
    glossary: Glossary | None = None

    def needs_attention(self, text: PiecedText, number: int, token_ids: Sequence[int]) -> bool:
        """Whether attention weights are needed for a translation of a piece."""
        return self.return_alignments or self.writer.needs_attention(text, number, token_ids)

    def translation(
        self,
        field: str,
        text: PiecedText,
        results: Sequence[Sequence[Hypothesis]],
        attention: Attention = (),
    ) -> Translation | InvalidRequest:
        """The translation of a text, or its fault if a piece has no hypothesis.

        ``results`` are the hypotheses of the pieces, best first, and ``attention`` their weights,
        for those that need them. Hypothesis k of the text joins the k-th ones of the pieces, or the
        last one of a piece with fewer.
        """
        if not all(results):
            return InvalidRequest(field, NO_TRANSLATION)
        tokenizer = self.tokenization.tokenizer
        return Translation(
            [
                self._hypothesis(text, parts, weights)
                for parts, weights in zip_longest(
                    _columns(results), _columns(attention), fillvalue=()
                )
            ],
            num_source_tokens=len(text),
            num_unknown_tokens=sum(map(tokenizer.num_unknown, text.token_ids)),
            truncation=self.tokenization.report(text),
        )

    def _hypothesis(
        self,
        text: PiecedText,
        parts: Sequence[Hypothesis],
        attention: Sequence[AttentionWeights | None],
    ) -> TranslationHypothesis:
        own = zip(parts, attention or [None] * len(parts), strict=True)
        written = [
            self.writer.written(text, number, part.token_ids, weights)
            for number, (part, weights) in enumerate(own)
        ]
        joined, targets = text.join([each.content for each in written])
        hypothesis = TranslationHypothesis(
            text=joined,
            score=self._score(parts),
            is_complete=all(part.is_complete for part in parts),
            is_loop=any(part.is_loop for part in parts),
            num_avoided_repetitions=sum(part.num_rewinds for part in parts),
            sentences=_sentences(text, targets) if self.return_sentences else (),
            alignments=self._alignments(text, written, targets),
            glossary_terms=self._terms(text, written, targets) if self.glossary else (),
            num_replaced=sum(each.num_replaced for each in written),
        )
        if not self.return_tokens:
            return hypothesis
        token_ids = list(chain.from_iterable(part.token_ids for part in parts))
        return replace(
            hypothesis,
            token_ids=token_ids,
            token_texts=self.writer.tokenizer.tokens(token_ids),
            log_probabilities=list(chain.from_iterable(part.log_probabilities for part in parts)),
        )

    def _alignments(
        self,
        text: PiecedText,
        written: Sequence[WrittenPiece],
        targets: Sequence[Span],
    ) -> list[WordLink]:
        if not self.return_alignments:
            return []
        found = [
            link
            for number, (each, (start, _end)) in enumerate(zip(written, targets, strict=True))
            for link in piece_links(text, number, each.links, each.places_of_copies, start)
        ]
        found += gap_links(text, targets)
        return sorted(found, key=lambda link: (link.target, link.source))

    def _terms(
        self, text: PiecedText, written: Sequence[WrittenPiece], targets: Sequence[Span]
    ) -> list[PlacedTerm]:
        assert self.glossary is not None
        return [
            term
            for number, (each, (start, _end)) in enumerate(zip(written, targets, strict=True))
            for term in piece_terms(self.glossary, text, number, each, start)
        ]

    def _score(self, parts: Sequence[Hypothesis]) -> float:
        if len(parts) == 1:
            return parts[0].score
        num_tokens = sum(len(part.token_ids) for part in parts)
        total = sum(sum(part.log_probabilities) for part in parts)
        return length_penalized(total, num_tokens, self.length_penalty) if parts else 0.0


def _columns(results: Sequence[Sequence[Part]]) -> Iterator[Sequence[Part]]:
    """The parts, of all pieces, that make each hypothesis of the text."""
    if len(results) == 1:
        yield from ((part,) for part in results[0])
        return
    for k in range(max(map(len, results), default=1)):
        yield [each[min(k, len(each) - 1)] for each in results]


def _sentences(text: PiecedText, targets: Sequence[Span]) -> list[SentencePair]:
    return [
        SentencePair((text.begin + piece.start, text.begin + piece.end), target)
        for piece, target in zip(text.pieces, targets, strict=True)
    ]
