"""Joint filling of all masks of a text: a beam search from the first mask to the last one."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from attendant_server.application.catalog import ServedModel
from attendant_server.application.mask_candidates import GivenCandidates
from attendant_server.application.mask_queries import MAX_RUNNING_QUERIES, MaskQuery, predict
from attendant_server.application.quotas import current_usage
from attendant_server.engine.encoder_calls import MaskCandidates

MAX_JOINT_MASKS = 16
"""Masks of a text that are filled together."""


class TextToFill(NamedTuple):
    """A text with masks that are filled together."""

    token_ids: Sequence[int]
    masks: Sequence[int]
    """Indices of the masks in ``token_ids``."""
    given: Sequence[GivenCandidates] | None
    """The candidates for each mask; None for the whole vocabulary."""


class FilledToken(NamedTuple):
    """A token for a mask, with its probability after the masks before it."""

    id: int
    text: str
    probability: float


class Filling(NamedTuple):
    """Tokens for the first masks of a text, with the sum of their log-probabilities."""

    tokens: tuple[FilledToken, ...] = ()
    log_probability: float = 0.0

    def extended(self, token: FilledToken) -> "Filling":
        """This filling and the token of one mask more."""
        log_probability = math.log(token.probability) if token.probability else -math.inf
        return Filling((*self.tokens, token), self.log_probability + log_probability)

    def query(self, text: TextToFill) -> MaskQuery:
        """The query of the next mask, with the earlier ones filled."""
        number, token_ids = len(self.tokens), list(text.token_ids)
        for mask, token in zip(text.masks, self.tokens, strict=False):
            token_ids[mask] = token.id
        given = None if text.given is None else [text.given[number].token_ids]
        return MaskQuery(token_ids, [text.masks[number]], given)


async def fill_jointly(
    model: ServedModel,
    texts: Sequence[TextToFill],
    beam_size: int,
    readable_token: Callable[[int], str],
    deadline: float,
) -> list[list[Filling]]:
    """The ``beam_size`` likeliest fillings of each text that the search finds, best first.

    Raises QuotaExceeded: every run of a text counts its tokens.
    """
    runs = sum(len(text.token_ids) * (len(text.masks) - 1) * beam_size for text in texts)
    current_usage().take_tokens(runs)
    beams: list[list[Filling]] = [[Filling()] for _ in texts]
    for number in range(max((len(text.masks) for text in texts), default=0)):
        open_texts = [i for i, text in enumerate(texts) if number < len(text.masks)]
        queries = [filling.query(texts[i]) for i in open_texts for filling in beams[i]]
        size = max(MAX_RUNNING_QUERIES, len(texts))
        found = iter(await predict(model, queries, beam_size, size, deadline))
        for i in open_texts:
            extended = [
                filling.extended(token)
                for filling in beams[i]
                for token in _tokens(texts[i], number, next(found), readable_token)
            ]
            beams[i] = sorted(extended, key=lambda each: -each.log_probability)[:beam_size]
    return beams


def _tokens(
    text: TextToFill,
    number: int,
    candidates: MaskCandidates,
    readable_token: Callable[[int], str],
) -> Iterator[FilledToken]:
    """The candidates for the mask of this number."""
    token_ids, probabilities = (
        candidates.token_ids[0].tolist(),
        candidates.probabilities[0].tolist(),
    )
    if text.given is not None:
        texts: Sequence[str] = text.given[number].texts
        yield from map(FilledToken, token_ids, texts, probabilities)
    else:
        yield from map(FilledToken, token_ids, map(readable_token, token_ids), probabilities)
