"""Predictions for the masks of a batch's texts: the likeliest tokens, or the given ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.encoder_calls import FillMaskCall, MaskCandidates
from attendant_server.engine.models import EmbeddingModel

MAX_RUN_PROBABILITIES = 1 << 22
"""Probabilities that one run returns for given tokens, of which it needs those of the whole
vocabulary. More masks need several runs, so that no call takes much memory."""


class MaskedText(NamedTuple):
    """A text of a `FillMaskCall` after the encoder's run."""

    call: FillMaskCall
    text_index: int
    hidden: NDArray[np.float32]  # (masks, d)


def predictions(model: EmbeddingModel, texts: Sequence[MaskedText]) -> list[MaskCandidates]:
    """The candidates for the masks of each text, from as few runs as possible."""
    likeliest = iter(_likeliest(model, [text for text in texts if not text.call.candidate_ids]))
    given = iter(_given(model, [text for text in texts if text.call.candidate_ids]))
    return [next(given if text.call.candidate_ids else likeliest) for text in texts]


def _likeliest(model: EmbeddingModel, texts: Sequence[MaskedText]) -> list[MaskCandidates]:
    if not texts:
        return []
    top_k = max(text.call.top_k for text in texts)
    found = model.fill(np.concatenate([text.hidden for text in texts]), top_k)
    results, stop = [], 0
    for text in texts:
        start, stop = stop, stop + len(text.hidden)
        own = slice(start, stop), slice(text.call.top_k)
        results.append(MaskCandidates(found.token_ids[own], found.probabilities[own]))
    return results


def _given(model: EmbeddingModel, texts: Sequence[MaskedText]) -> list[MaskCandidates]:
    if not texts:
        return []
    of_masks = [ids for text in texts for ids in text.call.candidate_ids[text.text_index]]
    hidden = np.concatenate([text.hidden for text in texts])
    longest = max(map(len, of_masks), default=0)
    token_ids = np.array([[*ids, *[0] * (longest - len(ids))] for ids in of_masks], np.int64)
    probabilities = np.zeros(token_ids.shape, np.float32)
    num_masks = max(1, MAX_RUN_PROBABILITIES // model.vocab_size)
    for first in range(0, len(hidden), num_masks):
        run = slice(first, first + num_masks)
        probabilities[run] = _probabilities(model, hidden[run], token_ids[run])
    for mask, ids in enumerate(of_masks):
        probabilities[mask, len(ids) :] = 0
    ends = np.cumsum([len(text.hidden) for text in texts])[:-1]
    return [
        MaskCandidates(*each)
        for each in zip(np.split(token_ids, ends), np.split(probabilities, ends), strict=True)
    ]


def _probabilities(
    model: EmbeddingModel, hidden: NDArray[np.float32], token_ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The probabilities (masks, candidates) of tokens for hidden states (masks, d)."""
    found = model.fill(hidden, model.vocab_size)
    by_id = np.full((len(hidden), model.vocab_size), np.nan, np.float32)
    np.put_along_axis(by_id, found.token_ids, found.probabilities, axis=1)
    return np.take_along_axis(by_id, token_ids, axis=1)
