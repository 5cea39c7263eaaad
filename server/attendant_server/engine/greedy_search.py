"""Greedy search: a single hypothesis, over one row."""

from collections.abc import Mapping, Sequence
from math import inf

from attendant_server.engine.calls import Hypothesis, SearchOptions
from attendant_server.engine.models import CacheCopy
from attendant_server.engine.search import length_penalized


class GreedySearch:
    """Takes the likeliest token at every step, or all tokens of a step of several tokens."""

    width = 1
    num_candidates = 1

    def __init__(self, options: SearchOptions, start_token_id: int, eos_id: int) -> None:
        self.next_tokens = [start_token_id]
        self._start_token_id = start_token_id
        self.is_finished = False
        self._num_rewinds = 0
        self._rewound_to: int | None = None
        self.is_blocked = False
        """Whether nothing but the token that a rewind forbids may follow. The step is undone."""
        self._max_tokens, self._eos_id = options.max_output_tokens, eos_id
        self._stops, self._is_stopped = options.stops, False
        self._length_penalty = options.length_penalty
        self._forced = options.forced_token_ids
        """The tokens that are still to be forced."""
        self._is_dropped = self._is_loop = False
        self._token_ids: list[int] = []
        self._log_probabilities: list[float] = []

    @property
    def num_tokens(self) -> int:
        """Number of tokens so far."""
        return len(self._token_ids)

    def prefixes(self) -> Sequence[Sequence[int]]:
        """All tokens so far."""
        return [self._token_ids]

    def num_taken(self, token_ids: Sequence[Sequence[int]]) -> int:
        """Tokens up to the end token or the output limit."""
        tokens = token_ids[0][: self._max_tokens - len(self._token_ids)]
        return tokens.index(self._eos_id) + 1 if self._eos_id in tokens else len(tokens)

    def advance(
        self,
        token_ids: Sequence[Sequence[int]],
        log_probabilities: Sequence[Sequence[float]],
        scores: Sequence[Sequence[float]] | None = None,
    ) -> Sequence[CacheCopy]:
        """Append the best candidate of each token that the step decoded, up to the end token."""
        if self._forced:
            forced = self._forced[: len(token_ids[0])]
            self._forced = self._forced[len(forced) :]
            token_ids = [[*forced, *token_ids[0][len(forced) :]]]
            log_probabilities = [[0.0] * len(forced) + [*log_probabilities[0][len(forced) :]]]
            scores = None
        num_taken = self._num_until_stop(token_ids[0][: self.num_taken(token_ids)])
        taken = log_probabilities[0][:num_taken]
        if -inf in (taken if scores is None else scores[0]):
            self.is_blocked = self.num_tokens == self._rewound_to
            if self.is_blocked:
                return ()
            self.is_finished = self._is_dropped = True
            return ()
        self._token_ids += token_ids[0][:num_taken]
        self._log_probabilities += taken
        token = self.next_tokens[0] = self._token_ids[-1]
        is_full = len(self._token_ids) == self._max_tokens
        self.is_finished = token == self._eos_id or self._is_stopped or is_full
        return ()

    def _num_until_stop(self, token_ids: Sequence[int]) -> int:
        """Number of tokens up to the one after which the hypothesis stops, or of all of them."""
        if self._stops is not None:
            for number in range(1, len(token_ids) + 1):
                if self._stops([*self._token_ids, *token_ids[:number]]):
                    self._is_stopped = True
                    return number
        return len(token_ids)

    def end_loops(self, loops: Mapping[int, int]) -> None:
        """Finish with the tokens before the loop."""
        if 0 in loops:
            del self._token_ids[loops[0] :], self._log_probabilities[loops[0] :]
            self.is_finished = self._is_loop = True

    def rewind(self, num_tokens: int) -> None:
        """Go on from the first ``num_tokens`` tokens, which include the forced ones."""
        del self._token_ids[num_tokens:], self._log_probabilities[num_tokens:]
        self.next_tokens[0] = self._token_ids[-1] if num_tokens else self._start_token_id
        self.is_finished = self._is_stopped = False
        self._num_rewinds += 1
        self._rewound_to = num_tokens

    def unblock(self) -> None:
        """Go on, since the forbidden token is allowed again."""
        self._num_rewinds -= 1
        self._rewound_to, self.is_blocked = None, False

    @property
    def num_settled(self) -> int:
        """Number of tokens so far, without the end token."""
        return self.num_tokens - (self._token_ids[-1:] == [self._eos_id])

    def settled_prefix(self) -> tuple[int, ...]:
        """All tokens so far, without the end token."""
        return tuple(self._token_ids[: self.num_settled])

    def hypotheses(self) -> list[Hypothesis]:
        """The only hypothesis, unless it was dropped."""
        if self._is_dropped:
            return []
        score = length_penalized(
            sum(self._log_probabilities), self.num_tokens, self._length_penalty
        )
        return [
            Hypothesis(
                tuple(self._token_ids),
                tuple(self._log_probabilities),
                score,
                is_complete=self._is_stopped or self._token_ids[-1] == self._eos_id,
                is_loop=self._is_loop,
                num_rewinds=self._num_rewinds,
            )
        ]
