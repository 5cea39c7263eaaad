"""Decoding policies: greedy search and beam search over the candidates of the model.

There is one search object per sentence. Every step gives it the best candidates of each row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from math import inf
from operator import add
from types import MappingProxyType
from typing import Protocol

from attendant_server.engine.beams import Beam
from attendant_server.engine.calls import Hypothesis, SearchOptions
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


def new_search(options: SearchOptions, start_token_id: int, eos_id: int) -> Search:
    """A new search for ``options``: greedy for a beam size of 1, else a beam search."""
    if options.beam_size == 1:
        return GreedySearch(options, start_token_id, eos_id)
    return BeamSearch(options, start_token_id, eos_id)


def length_penalized(log_probability: float, num_tokens: int, length_penalty: float) -> float:
    """The score of a hypothesis: log_probability / num_tokens^length_penalty."""
    return log_probability / float(num_tokens**length_penalty)


class GreedySearch:
    """Takes the likeliest token at every step, or all tokens of a step of several tokens."""

    width = 1
    num_candidates = 1

    def __init__(self, options: SearchOptions, start_token_id: int, eos_id: int) -> None:
        self.next_tokens = [start_token_id]
        self.is_finished = False
        self._max_tokens, self._eos_id = options.max_output_tokens, eos_id
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
        num_taken = self.num_taken(token_ids)
        taken = log_probabilities[0][:num_taken]
        if -inf in (taken if scores is None else scores[0]):
            self.is_finished = self._is_dropped = True
            return ()
        self._token_ids += token_ids[0][:num_taken]
        self._log_probabilities += taken
        token = self.next_tokens[0] = self._token_ids[-1]
        self.is_finished = token == self._eos_id or len(self._token_ids) == self._max_tokens
        return ()

    def end_loops(self, loops: Mapping[int, int]) -> None:
        """Finish with the tokens before the loop."""
        if 0 in loops:
            del self._token_ids[loops[0] :], self._log_probabilities[loops[0] :]
            self.is_finished = self._is_loop = True

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
                is_complete=self._token_ids[-1] == self._eos_id,
                is_loop=self._is_loop,
            )
        ]


class BeamSearch:
    """Keeps the ``beam_size`` likeliest hypotheses at every step.

    The 2 x ``beam_size`` best continuations of all beams are ranked by their total. End tokens
    among the first ``beam_size`` finish their beams. The best ``beam_size`` other continuations run
    on. The search ends when ``patience`` x ``beam_size`` beams have finished and the best running
    beam, if it ended now, would not beat the worst of them; with ``early_stopping``, the running
    beams do not matter. It also ends at ``max_output_tokens``, where running beams count as
    finished. If fewer than ``beam_size`` beams can run on, the remaining rows hold beams of
    probability zero.
    """

    _prefixes: Mapping[Beam | None, tuple[int, ...]] = MappingProxyType({})
    """The running beams of the last call of `prefixes`, with their tokens."""

    def __init__(self, options: SearchOptions, start_token_id: int, eos_id: int) -> None:
        self.width, self.num_candidates = options.beam_size, num_candidates(options.beam_size)
        self.next_tokens = [start_token_id] * self.width
        self.is_finished = False
        self._options, self._eos_id = options, eos_id
        self._num_wanted = round(options.patience * options.beam_size)
        self._running = [Beam()] * self.width  # by row
        self._finished: list[Beam] = []
        self._has_loops = False
        """Whether the finished beams are cut, because they and all running ones were loops."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens in every running beam."""
        return self._running[0].num_tokens

    def prefixes(self) -> Sequence[Sequence[int]]:
        """The tokens of each row's beam."""
        if self._running[0] not in self._prefixes:
            self._prefixes = {beam: self._prefix(beam) for beam in self._running}
        return [self._prefixes[beam] for beam in self._running]

    def _prefix(self, beam: Beam) -> tuple[int, ...]:
        """The tokens of a beam, which are those of its parent and one more."""
        if beam.parent is not None and beam.parent in self._prefixes:
            return (*self._prefixes[beam.parent], beam.token)
        return beam.token_ids()

    def running_tokens(self) -> list[int]:
        """The last tokens of the beams that run on."""
        return [beam.token for beam in self._possible()]

    def num_taken(self, token_ids: Sequence[Sequence[int]]) -> int:
        """All candidates."""
        return len(token_ids[0])

    def advance(
        self,
        token_ids: Sequence[Sequence[int]],
        log_probabilities: Sequence[Sequence[float]],
        scores: Sequence[Sequence[float]] | None = None,
    ) -> list[CacheCopy]:
        """Extend the beams by the best candidates of all of them, or by a forced token."""
        if self.num_tokens < len(self._options.forced_token_ids):
            token_ids = [[self._options.forced_token_ids[self.num_tokens]]] * self.width
            log_probabilities = scores = [[0.0]] * self.width
        elif scores is None:
            scores = log_probabilities
        survivors: list[tuple[int, Beam]] = []  # (row of the parent, beam), best first
        num_finished = len(self._finished)
        for rank, (_, row, candidate) in enumerate(self._best_continuations(scores)):
            token = token_ids[row][candidate]
            beam = self._running[row].extended(
                token, log_probabilities[row][candidate], scores[row][candidate]
            )
            if token != self._eos_id:
                survivors.append((row, beam))
                if len(survivors) == self.width:
                    break
            elif rank < self.width:
                self._finished.append(beam)
        if len(self._finished) > num_finished:
            self._finished = sorted(self._finished, key=self._score, reverse=True)
            del self._finished[self._num_wanted :]
        copies = self._settle(survivors)
        self.next_tokens = [beam.token for beam in self._running]
        self.is_finished = not survivors or self._is_decided(best=survivors[0][1])
        return copies

    def end_loops(self, loops: Mapping[int, int]) -> None:
        """Drop running beams, or finish with all of them if no other beam can win."""
        running = list(enumerate(self._running))
        cut = [b.beginning(loops[row]) for row, b in running if row in loops and b.total > -inf]
        self._running = [
            replace(beam, total=-inf) if row in loops else beam for row, beam in running
        ]
        if cut and not self._possible():
            self.is_finished = True
            if not self._finished:
                self._has_loops = True
                different = {beam.token_ids(): beam for beam in cut}.values()
                self._finished = sorted(different, key=self._score, reverse=True)

    def _best_continuations(
        self, scores: Sequence[Sequence[float]]
    ) -> list[tuple[float, int, int]]:
        """(negated total, row, candidate) of the best continuations, best first.

        Ties are ordered by row and then by rank, so that a search is deterministic.
        """
        beams = self._running if self.num_tokens else self._running[:1]  # at first all are equal
        ranked = sorted(
            (-(beam.total + score), row, candidate)
            for row, beam in enumerate(beams)
            for candidate, score in enumerate(scores[row])
        )
        best = ranked[: 2 * self.width]
        while best and best[-1][0] == inf:
            best.pop()
        return best

    def _settle(self, survivors: Sequence[tuple[int, Beam]]) -> list[CacheCopy]:
        """Give every survivor a row: a beam's best child keeps its row, others take free rows."""
        before, rows = self._running, dict[int, Beam]()
        moving = [(parent, b) for parent, b in survivors if rows.setdefault(parent, b) is not b]
        free = [row for row in range(self.width) if row not in rows]
        copies: list[CacheCopy] = []
        for row in free[len(moving) :]:  # no survivor for this row: it keeps its own cache
            rows[row] = before[row].extended(self._eos_id, -inf, -inf)
        for row, (parent, beam) in zip(free, moving, strict=False):
            rows[row] = beam
            # A beam's row holds the keys of the begin token and of all tokens before its last one.
            start = before[row].num_shared_tokens(before[parent]) + 1
            if start < beam.num_tokens:
                copies.append(CacheCopy(row, parent, start, beam.num_tokens))
        self._running = [rows[row] for row in range(self.width)]
        return copies

    def _is_decided(self, best: Beam) -> bool:
        if self.num_tokens == self._options.max_output_tokens:
            return True
        if len(self._finished) < self._num_wanted:
            return False
        if self._options.early_stopping:
            return True
        return self._score(best) <= self._score(self._finished[-1])

    def _score(self, beam: Beam) -> float:
        return length_penalized(beam.total, beam.num_tokens, self._options.length_penalty)

    @property
    def num_settled(self) -> int:
        """Number of tokens that the running beams and the best finished beam share."""
        best, running = self._finished[:1], self._possible()
        if not running:
            return best[0].num_tokens - 1 if best else 0
        first, *others = running
        num_shared = [first.num_shared_tokens(beam) for beam in others]
        num_shared += [first.beginning(b.num_tokens).num_shared_tokens(b) for b in best]
        return min(num_shared, default=first.num_tokens)

    def settled_prefix(self) -> tuple[int, ...]:
        """The common prefix of the running beams and the best finished beam."""
        can_win = [*self._possible(), *self._finished[:1]]
        return can_win[0].token_ids()[: self.num_settled] if can_win else ()

    def hypotheses(self) -> list[Hypothesis]:
        """The best finished hypotheses; at the output limit also the running ones."""
        beams = self._finished
        if self.num_tokens == self._options.max_output_tokens:
            beams = sorted([*beams, *self._possible()], key=self._score, reverse=True)
        return [self._hypothesis(beam) for beam in beams[: self._options.num_hypotheses]]

    def _possible(self) -> list[Beam]:
        """The running beams without the beams of probability zero."""
        return [beam for beam in self._running if beam.total > -inf]

    def _hypothesis(self, beam: Beam) -> Hypothesis:
        log_probabilities = tuple(b.token_log_probability for b in beam.lineage())
        # Not `sum`, which rounds in another way than the search does.
        total = reduce(add, log_probabilities, 0.0)
        return Hypothesis(
            beam.token_ids(),
            log_probabilities,
            length_penalized(total, beam.num_tokens, self._options.length_penalty),
            is_complete=beam.token == self._eos_id,
            is_loop=self._has_loops,
        )
