"""The translation of one piece as answers have it: with its copies, and without unknown tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from attendant_server.application.alignment import WordLink, links, token_spans
from attendant_server.application.piece_alignment import source_spans
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.splitting import Span
from attendant_server.application.unknown_tokens import Replacement, filled
from attendant_server.application.words import word_spans
from attendant_server.engine.pair_calls import AttentionWeights
from attendant_server.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class WrittenPiece:
    """The translation of a piece."""

    translation: str
    """As it was decoded, without copies, and with source text in the place of unknown tokens."""
    content: str
    """The text that answers have: with the copies, and with the prefix as it was sent."""
    places_of_copies: Sequence[int]
    """Where the copies belong in ``translation``."""
    links: Sequence[WordLink] = ()
    """The links between words of `Piece.text` and of ``translation``, if attention was given."""
    num_replaced: int = 0
    """Number of unknown tokens that were replaced."""


@dataclass(frozen=True, slots=True)
class PieceWriter:
    """Writes the translations of pieces for one call."""

    tokenizer: TextTokenizer
    """That of translations."""
    source_unknown: int | None = None
    """The unknown token of sources."""
    replaces_unknown: bool = False
    """Whether unknown tokens are replaced by source text."""
    aligns_copies: bool = False
    """Whether the model can align, so that copies are placed by attention."""

    def needs_attention(self, text: PiecedText, number: int, token_ids: Sequence[int]) -> bool:
        """Whether the text of a translation depends on its attention weights."""
        if self.replaces_unknown and self.tokenizer.num_unknown(token_ids):
            return True
        return self.aligns_copies and text.pieces[number].has_inner_copies

    def settled(self, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """The tokens before the first one that will be replaced; all of them if there is none."""
        if not (self.replaces_unknown and self.tokenizer.num_unknown(token_ids)):
            return token_ids
        return token_ids[: token_ids.index(self.tokenizer.unk_id)]

    def written(
        self,
        text: PiecedText,
        number: int,
        token_ids: Sequence[int],
        weights: AttentionWeights | None,
    ) -> WrittenPiece:
        """The translation ``token_ids`` of piece ``number``; ``weights`` are needed as stated."""
        piece, tokenizer = text.pieces[number], self.tokenizer
        if weights is None:
            translation = tokenizer.decode(token_ids)
            places = piece.places_of_copies(translation)
            content = piece.with_copies(text.decoded(tokenizer, token_ids), places)
            return WrittenPiece(translation, content, places)
        num_replaced = tokenizer.num_unknown(token_ids) if self.replaces_unknown else 0
        replacements: Sequence[Replacement] = ()
        if num_replaced:
            translation, spans, replacements = filled(
                tokenizer, self.source_unknown, text, number, token_ids, weights
            )
        else:
            translation = tokenizer.decode(token_ids)
            spans = token_spans(tokenizer.decode, token_ids, translation)
        words = word_spans(piece.text), word_spans(translation)
        found = list(links(weights, source_spans(text, number), words[0], spans, words[1]))
        if replacements:
            found = list(_with_replacements(found, replacements, words[1]))
        places = piece.places_of_copies(translation, found)
        content = piece.with_copies(text.decoded(tokenizer, token_ids, translation), places)
        return WrittenPiece(translation, content, places, found, num_replaced)


def _with_replacements(
    found: Sequence[WordLink], replacements: Sequence[Replacement], target_words: Sequence[Span]
) -> Iterator[WordLink]:
    """The links, with those of words inside replacements to themselves instead of others."""
    own = {word: r for r in replacements for word in target_words if _is_inside(word, r.target)}
    yield from (link for link in found if link.target not in own)
    for word, replacement in own.items():
        moved = replacement.source[0] - replacement.target[0]
        yield WordLink((word[0] + moved, word[1] + moved), word, 1.0)


def _is_inside(one: Span, two: Span) -> bool:
    return two[0] <= one[0] and one[1] <= two[1]
