"""What a search of one sentence is, and how hypotheses are scored.

There is one search object per sentence. Every step gives it the best candidates of each row.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from attendant_server.engine.calls import Hypothesis
from attendant_server.engine.models import CacheCopy


class Search(Protocol):
    """The search state of one sentence over ``width`` rows."""

    width: int
    num_candidates: int
    """Candidates that a step must return for each row."""
    next_tokens: list[int]
    """The input token of each row in the next step."""
    is_finished: bool

    @property
    def num_tokens(self) -> int:
        """Number of tokens in every running hypothesis."""

    def prefixes(self) -> Sequence[Sequence[int]]:
        """The tokens of each row's hypothesis, without the begin token."""

    def num_taken(self, token_ids: Sequence[Sequence[int]]) -> int:
        """Number of leading `Candidates` of each row that `advance` would use."""

    def advance(
        self,
        token_ids: Sequence[Sequence[int]],
        log_probabilities: Sequence[Sequence[float]],
        scores: Sequence[Sequence[float]] | None = None,
    ) -> Sequence[CacheCopy]:
        """Take the `Candidates`, each (width, candidates), of the step after ``next_tokens``.

        ``scores`` rank them, by default their log-probabilities. A hypothesis whose scores are all
        minus infinity is dropped. The search is finished when the last hypothesis is dropped.
        Returns the copies between rows that the next step requires.
        """

    def end_loops(self, loops: Mapping[int, int]) -> None:
        """End hypotheses that repeat themselves.

        ``loops`` maps their rows to the numbers of tokens to keep. They are dropped if others run
        on or have finished; otherwise they are the result, cut to these tokens.
        """

    @property
    def num_settled(self) -> int:
        """Length of `settled_prefix`."""

    def settled_prefix(self) -> tuple[int, ...]:
        """The common prefix of all hypotheses that can still win, without the end token."""

    def hypotheses(self) -> list[Hypothesis]:
        """The ``num_hypotheses`` best hypotheses, best first, once the search is finished.

        Fewer or none if hypotheses were dropped.
        """


def num_candidates(width: int) -> int:
    """Candidates that a step must return per row: twice ``width``, as end tokens may be among them.

    Greedy search needs only the best one. It reads several candidates as several tokens.
    """
    return 1 if width == 1 else 2 * width


def length_penalized(log_probability: float, num_tokens: int, length_penalty: float) -> float:
    """The score of a hypothesis: log_probability / num_tokens^length_penalty."""
    return log_probability / float(num_tokens**length_penalty)
