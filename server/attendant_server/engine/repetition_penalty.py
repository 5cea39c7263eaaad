"""The repetition penalty, as in ``transformers``, of tokens that a hypothesis has already.

It is no token rule: what it adds to a log-probability depends on the logit or the log-probability.
So the step graph applies it (decision 0039).
"""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from attendant_server.engine.models import TokenPenalties
from attendant_server.engine.search import Search

PenalizedSentence: TypeAlias = tuple[int, Search, float, int | None]
"""The first row of a sentence, its search, its penalty and the begin token of its hypotheses."""


def token_penalties(sentences: Iterable[PenalizedSentence]) -> TokenPenalties:
    """The penalties of the tokens of each row, with its begin token."""
    positions: list[tuple[int, int]] = []
    values: list[float] = []
    for first_row, search, penalty, begin_token_id in sentences:
        begin = () if begin_token_id is None else (begin_token_id,)
        for row, token_ids in enumerate(search.prefixes(), first_row):
            tokens = {*begin, *token_ids}
            positions += [(row, token) for token in tokens]
            values += [penalty] * len(tokens)
    return TokenPenalties(
        np.array(positions, np.int64).reshape(-1, 2), np.array(values, np.float32)
    )
