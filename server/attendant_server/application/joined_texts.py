"""Joining the translations of a call's texts from those of their pieces, beside other calls."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from attendant_server.application.held_memory import current_hold
from attendant_server.application.hypotheses import (
    HYPOTHESIS_SIZE,
    Attention,
    Joiner,
    Translation,
)
from attendant_server.application.jobs import (
    CHARACTERS_READ_FOR_ONE,
    TOKENS_DECODED_FOR_ONE,
    JobRunner,
)
from attendant_server.application.piece_searches import work_of_places
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.tokenization import good
from attendant_server.application.validation import PLACE_BYTES, TEXTS, RequestLimits
from attendant_server.engine.calls import Hypothesis
from attendant_server.errors import InvalidRequest


async def join_texts(
    jobs: JobRunner,
    limits: RequestLimits,
    joiner: Joiner,
    num_bytes: int,
    texts: Sequence[PiecedText | InvalidRequest],
    results: Sequence[list[Hypothesis]],
    attention: Attention,
) -> list[Translation | InvalidRequest]:
    """The translation of each text. Raises CallTooLarge, or QueueFull without room for them.

    ``results`` and ``attention`` are those of all pieces. The answer takes ``num_bytes`` without
    the places of words and sentences, whose number depends on what is copied, too.
    """
    held = current_hold()
    found: list[Translation | InvalidRequest] = []
    async for part in jobs.run_parts(_joins(joiner, texts, results, attention)):
        found += part
        num_places = sum(each.num_places for each in good(part))
        held.hold_places(num_places)
        num_bytes += num_places * PLACE_BYTES
        limits.check_response("texts", num_bytes)
    return found


def _joins(
    joiner: Joiner,
    texts: Sequence[PiecedText | InvalidRequest],
    results: Sequence[list[Hypothesis]],
    attention: Attention,
) -> Iterator[tuple[int, Callable[[], Translation | InvalidRequest]]]:
    """What joins the translation of each text, with its work as a number of tokens."""
    first = 0
    for i, text in enumerate(texts):
        if isinstance(text, InvalidRequest):
            yield 0, partial(_same, text)
            continue
        own = slice(first, first + len(text.pieces))
        first = own.stop
        join = partial(joiner.translation, TEXTS.format(i), text, results[own], attention[own])
        yield _work_of_joining(joiner, text, results[own], attention[own]), join


def _work_of_joining(
    joiner: Joiner, text: PiecedText, results: Sequence[list[Hypothesis]], attention: Attention
) -> int:
    lengths = [len(h.token_ids) for hypotheses in results for h in hypotheses]
    num_tokens = sum(lengths)
    returns_tokens = joiner.return_tokens or joiner.return_alignments
    num_read = max(map(len, results), default=1) * len(text.text)
    return (
        (num_tokens if returns_tokens else HYPOTHESIS_SIZE * len(lengths))
        + num_tokens // TOKENS_DECODED_FOR_ONE
        + work_of_places(attention)
        + num_read // CHARACTERS_READ_FOR_ONE
    )


def _same(fault: InvalidRequest) -> InvalidRequest:
    return fault
