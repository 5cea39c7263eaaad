"""Sampling: a search that draws each token at random among the likeliest ones."""

from bisect import bisect, bisect_left
from collections.abc import Sequence
from itertools import accumulate
from math import exp, inf
from random import Random

from attendant_server.engine.calls import Sampling, SearchOptions
from attendant_server.engine.greedy_search import GreedySearch
from attendant_server.engine.models import CacheCopy

MAX_TOP_K = 256
"""The largest ``top_k``: candidates that a step returns for each row."""
FEW_CANDIDATES = 64
"""Candidates of a step if no search of the running batch needs more. There are only two numbers, so
that searches with different ``top_k`` share a running batch."""


def num_allowed(scores: Sequence[float], sampling: Sampling) -> tuple[int, list[float]]:
    """How many of the candidates, best first, may be drawn, and their weights.

    The weights are probabilities by the temperature, divided by that of the best candidate.
    ``top_p`` counts among the best ``top_k`` candidates.
    """
    weights = [
        exp((score - scores[0]) / sampling.temperature) for score in scores[: sampling.top_k]
    ]
    cumulative = list(accumulate(weights))
    by_top_p = bisect_left(cumulative, sampling.top_p * cumulative[-1]) + 1
    least = max(sampling.min_p, 5e-324)
    by_min_p = sum(weight >= least for weight in weights)
    return min(by_top_p, by_min_p), weights


class SampledSearch(GreedySearch):
    """Draws every token by its probability. Two searches with the same seed draw the same tokens.

    Each search has a random generator of its own, so its neighbours do not matter.
    """

    def __init__(self, options: SearchOptions, seed: str, start_token_id: int, eos_id: int) -> None:
        super().__init__(options, start_token_id, eos_id)
        assert options.sampling is not None
        self._sampling = options.sampling
        self._random = Random(seed)  # not for secrets
        is_few = self._sampling.top_k <= FEW_CANDIDATES
        self.num_candidates = FEW_CANDIDATES if is_few else MAX_TOP_K

    def num_taken(self, token_ids: Sequence[Sequence[int]]) -> int:
        """All candidates."""
        return len(token_ids[0])

    def advance(
        self,
        token_ids: Sequence[Sequence[int]],
        log_probabilities: Sequence[Sequence[float]],
        scores: Sequence[Sequence[float]] | None = None,
    ) -> Sequence[CacheCopy]:
        """Append the forced token, or one that is drawn among the candidates by their scores."""
        rank = 0
        if not self._forced:
            rank = self._drawn(token_ids[0], (log_probabilities if scores is None else scores)[0])
        drawn = slice(rank, rank + 1)
        return super().advance(
            [token_ids[0][drawn]],
            [log_probabilities[0][drawn]],
            None if scores is None else [scores[0][drawn]],
        )

    def _drawn(self, token_ids: Sequence[int], scores: Sequence[float]) -> int:
        """The rank of a token that is drawn."""
        if scores[0] == -inf:
            return 0
        number, weights = num_allowed(scores, self._sampling)
        # In the order of their ids: rounding, which depends on the batch, may swap two ranks.
        ranks = sorted(range(number), key=token_ids.__getitem__)
        ends = list(accumulate(weights[rank] for rank in ranks))
        place = bisect(ends, self._random.random() * ends[-1])
        return ranks[min(place, number - 1)]  # the product may be rounded up to the last end
