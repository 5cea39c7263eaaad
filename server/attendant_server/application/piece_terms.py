"""The terms of a glossary in one piece of a text, as places in the whole texts."""

from collections.abc import Iterator, Sequence

from attendant_server.application.glossaries import Glossary
from attendant_server.application.piece_alignment import as_sent
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.term_placement import PlacedTerm, placed_terms
from attendant_server.tokenizer import TextTokenizer


def piece_terms(
    glossary: Glossary,
    tokenizer: TextTokenizer,
    text: PiecedText,
    number: int,
    token_ids: Sequence[int],
    target_start: int,
) -> Iterator[PlacedTerm]:
    """The terms of piece ``number``, by their places in the text as sent and in its translation.

    ``token_ids`` are the translation of the piece, and ``tokenizer`` is that of translations.
    ``target_start`` is the place of the piece in the whole translation.
    """
    piece = text.pieces[number]
    translation = tokenizer.decode(token_ids)
    copies = piece.places_of_copies(translation)
    for term in placed_terms(glossary.matches(piece.text), translation):
        start, end = piece.source_span(term.source)
        target = term.target
        if target is not None:
            target_span = piece.target_span(as_sent(text, target), copies)
            target = target_start + target_span[0], target_start + target_span[1]
        yield term._replace(source=(text.begin + start, text.begin + end), target=target)
