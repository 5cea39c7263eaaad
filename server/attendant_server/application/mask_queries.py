"""Queries of a call's masks to the engine, in parts that no other call has to wait long for."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from attendant_server import records
from attendant_server.application.catalog import ServedModel
from attendant_server.engine.calls import joined_timings
from attendant_server.engine.encoder_calls import FillMaskCall, MaskCandidates

MAX_RUNNING_QUERIES = 256
"""Queries that the engine has at the same time, unless the call has more texts."""
MAX_RUNNING_PROBABILITIES = 1 << 19
"""Probabilities for given candidates that the engine computes at the same time, over the whole
vocabulary of each mask: about 60 ms of work."""


class MaskQuery(NamedTuple):
    """A text with masks to predict."""

    token_ids: Sequence[int]
    masks: Sequence[int]
    """Indices of the masks in ``token_ids``."""
    candidate_ids: Sequence[Sequence[int]] | None = None
    """Tokens for each mask; None for the likeliest ones of the vocabulary."""


async def predict(
    model: ServedModel, queries: Sequence[MaskQuery], top_k: int, max_queries: int, deadline: float
) -> list[MaskCandidates]:
    """The ``top_k`` likeliest tokens, or the probabilities of the given ones, of each query.

    Either all queries have candidates or none. At most ``max_queries`` are run together.
    """
    results: list[MaskCandidates] = []
    timings = []
    for part in _parts(queries, model.description.vocab_size, max_queries):
        call = FillMaskCall(
            [query.token_ids for query in part],
            [query.masks for query in part],
            top_k,
            deadline,
            [query.candidate_ids for query in part if query.candidate_ids is not None],
        )
        results += await model.answer(call, may_wait=bool(results))
        timings.append(call.timings)
    if len(timings) > 1:
        records.current().engine = joined_timings(timings)
    return results


def _parts(
    queries: Sequence[MaskQuery], vocab_size: int, max_queries: int
) -> Iterator[Sequence[MaskQuery]]:
    max_masks = max(1, MAX_RUNNING_PROBABILITIES // vocab_size)
    part: list[MaskQuery] = []
    num_masks = 0
    for query in queries:
        added = 0 if query.candidate_ids is None else len(query.masks)
        if part and (len(part) == max_queries or num_masks + added > max_masks):
            yield part
            part, num_masks = [], 0
        part.append(query)
        num_masks += added
    if part:
        yield part
