"""The terms of a glossary in one piece of a text, as places in the whole texts."""

from collections.abc import Iterator

from attendant_server.application.glossaries import Glossary
from attendant_server.application.jobs import CHARACTERS_READ_FOR_ONE
from attendant_server.application.piece_alignment import as_sent
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.term_placement import PlacedTerm, placed_terms
from attendant_server.application.written_pieces import WrittenPiece


def work_of_matching(text: PiecedText, number: int) -> int:
    """The work of finding terms in a piece of a text, as a number of tokens in an answer."""
    return len(text.pieces[number].text) // CHARACTERS_READ_FOR_ONE


def piece_terms(
    glossary: Glossary, text: PiecedText, number: int, written: WrittenPiece, target_start: int
) -> Iterator[PlacedTerm]:
    """The terms of piece ``number``, by their places in the text as sent and in its translation.

    ``written`` is the translation of the piece, and ``target_start`` its place in the whole
    translation.
    """
    piece = text.pieces[number]
    for term in placed_terms(glossary.matches(piece.text), written.translation):
        start, end = piece.source_span(term.source)
        target = term.target
        if target is not None:
            sent = as_sent(text, target)
            target_span = piece.target_span(sent, written.places_of_copies)
            target = target_start + target_span[0], target_start + target_span[1]
        yield term._replace(source=(text.begin + start, text.begin + end), target=target)
