"""The repetition penalty, as in ``transformers``, of tokens that a hypothesis has already.

It is no token rule: what it adds to a log-probability depends on the logit or the log-probability.
So the step graph applies it (decision 0039).
"""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from attendant_server.engine.models import TokenPenalties
from attendant_server.engine.search import Search

PenalizedSentence: TypeAlias = tuple[int, Search, float]
"""The first row of a sentence, its search and its penalty."""


def token_penalties(sentences: Iterable[PenalizedSentence], start_token_id: int) -> TokenPenalties:
    """The penalties of the tokens of each row, with the start token."""
    positions: list[tuple[int, int]] = []
    values: list[float] = []
    for first_row, search, penalty in sentences:
        for row, token_ids in enumerate(search.prefixes(), first_row):
            tokens = {start_token_id, *token_ids}
            positions += [(row, token) for token in tokens]
            values += [penalty] * len(tokens)
    return TokenPenalties(
        np.array(positions, np.int64).reshape(-1, 2), np.array(values, np.float32)
    )
