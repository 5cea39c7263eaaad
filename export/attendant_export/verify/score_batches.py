"""Batches of targets whose scores of the whole vocabulary fit into little memory."""

from collections.abc import Sequence

import numpy as np

from attendant_export.data.batches import group_by_tokens

MAX_SCORES = 2**23
"""Number of scores, positions times vocabulary, that are computed at once."""


def score_batches(targets: Sequence[Sequence[int]], vocab_size: int) -> list[list[int]]:
    """The indices of ``targets`` in order, in padded batches of at most `MAX_SCORES` scores.

    A target with more scores is alone.
    """
    lengths = list(map(len, targets))
    return group_by_tokens(lengths, MAX_SCORES // vocab_size, np.arange(len(targets)))
