"""Word alignment of one piece of a text and its translation, as places in the whole texts."""

from collections.abc import Iterator, Sequence

from attendant_server.application.alignment import WordLink
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.splitting import Span
from attendant_server.application.words import word_spans


def piece_links(
    text: PiecedText,
    number: int,
    links: Sequence[WordLink],
    places_of_copies: Sequence[int],
    target_start: int,
) -> Iterator[WordLink]:
    """The links of piece ``number``, as places in the text as sent and in the whole translation.

    ``links`` are those of the piece without its copies, which have these places in its translation.
    ``target_start`` is the place of the piece in the whole translation.
    """
    piece = text.pieces[number]
    for link in links:
        start, end = piece.source_span(link.source)
        target = piece.target_span(as_sent(text, link.target), places_of_copies)
        yield WordLink(
            (text.begin + start, text.begin + end),
            (target_start + target[0], target_start + target[1]),
            link.weight,
        )
    inserted = 0
    for copy, place in zip(piece.copies, places_of_copies, strict=True):
        source_start = text.begin + piece.start + copy.offset + inserted
        yield from _same(copy.text, source_start, target_start + place + inserted)
        inserted += len(copy.text)


def gap_links(text: PiecedText, targets: Sequence[Span]) -> Iterator[WordLink]:
    """The links of the words between pieces, which are copied; ``targets`` are those of pieces."""
    source_start = target_start = 0
    for piece, (_start, end) in zip(text.pieces, targets, strict=True):
        yield from _same(
            text.text[source_start : piece.start], text.begin + source_start, target_start
        )
        source_start, target_start = piece.end, end
    yield from _same(text.text[source_start:], text.begin + source_start, target_start)


def _same(copied: str, source_start: int, target_start: int) -> Iterator[WordLink]:
    """The links of copied words to themselves."""
    for start, end in word_spans(copied):
        yield WordLink(
            (source_start + start, source_start + end),
            (target_start + start, target_start + end),
            1.0,
        )


def source_spans(text: PiecedText, number: int) -> list[Span]:
    """The place in the piece of each of its tokens; empty for tokens without text."""
    code = text.begin  # the model reads the code of the language before each piece
    return [
        (0, 0) if token.is_special else (max(0, token.start - code), max(0, token.end - code))
        for token in text.tokens[number]
    ]


def as_sent(text: PiecedText, span: Span) -> Span:
    """The place of a word after a prefix, which the answer has as it was sent."""
    prefix = text.prefix
    if prefix is None or not prefix.is_forced or span[1] <= len(prefix.decoded):
        return span
    moved = len(prefix.text) - len(prefix.decoded)
    return max(0, span[0] + moved), span[1] + moved
