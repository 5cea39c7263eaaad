"""Beam search: several hypotheses side by side, over as many rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from math import inf
from operator import add
from types import MappingProxyType

from attendant_server.engine.beams import Beam
from attendant_server.engine.calls import Hypothesis, SearchOptions
from attendant_server.engine.models import CacheCopy
from attendant_server.engine.search import length_penalized, num_candidates


class BeamSearch:
    """Keeps the ``beam_size`` likeliest hypotheses at every step.

    The 2 x ``beam_size`` best continuations of all beams are ranked by their total. Those that end,
    by an end token or `SearchOptions.stops`, finish if they are among the first ``beam_size``. The
    best ``beam_size`` other continuations run on. The search ends when ``patience`` x ``beam_size``
    beams have finished and the best running beam, if it ended now, would not beat the worst of
    them; with ``early_stopping``, the running beams do not matter. It also ends at
    ``max_output_tokens``, where running beams count as finished. If fewer than ``beam_size`` beams
    can run on, the remaining rows hold beams of probability zero.
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
            if not self._is_end(beam):
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

    def _is_end(self, beam: Beam) -> bool:
        """Whether nothing follows a beam."""
        stops = self._options.stops
        return beam.token == self._eos_id or (stops is not None and stops(beam.token_ids()))

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
            is_complete=self._is_end(beam),
            is_loop=self._has_loops,
        )
