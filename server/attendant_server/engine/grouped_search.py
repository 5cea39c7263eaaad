"""Searches of one sentence side by side: diverse beam search, and alternatives at a position.

A grouped search has the rows of several searches, its groups. A group that has finished keeps its
rows until the last one finishes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from math import inf
from os.path import commonprefix
from typing import NamedTuple, TypeAlias

from attendant_server.engine.beam_search import BeamSearch
from attendant_server.engine.calls import Hypothesis, SearchOptions
from attendant_server.engine.greedy_search import GreedySearch
from attendant_server.engine.models import CacheCopy
from attendant_server.engine.search import num_candidates

Group: TypeAlias = GreedySearch | BeamSearch


class RowCandidates(NamedTuple):
    """The candidates of adjacent rows, best first, each (rows, candidates)."""

    token_ids: Sequence[Sequence[int]]
    log_probabilities: Sequence[Sequence[float]]
    scores: Sequence[Sequence[float]]

    def rows(self, first: int, width: int) -> "RowCandidates":
        """Those of some of the rows."""
        part = slice(first, first + width)
        return RowCandidates(self.token_ids[part], self.log_probabilities[part], self.scores[part])

    def only(self, rank: int, width: int) -> "RowCandidates":
        """One candidate of the first row, for each of ``width`` rows."""
        return RowCandidates(
            [[self.token_ids[0][rank]]] * width,
            [[self.log_probabilities[0][rank]]] * width,
            [[self.scores[0][rank]]] * width,
        )


class GroupedSearch:
    """A `Search` over the rows of several searches of equal width.

    Subclasses decide how the groups depend on each other, and in which order their hypotheses are.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        options: SearchOptions,
        eos_id: int,
    ) -> None:
        self._groups: Sequence[Group] = groups
        self._options, self._eos_id = options, eos_id
        self._width = groups[0].width
        self.width = self._width * len(groups)
        self.num_candidates = num_candidates(self.width)
        self.next_tokens = self._next_tokens()
        self.is_finished = False

    @property
    def num_tokens(self) -> int:
        """Number of tokens in every hypothesis of the groups that have not finished."""
        return max(group.num_tokens for group in self._groups)

    def prefixes(self) -> Sequence[Sequence[int]]:
        """The tokens of each row; those of a group that has finished end in end tokens."""
        num_tokens = self.num_tokens
        return [
            prefix
            if len(prefix) == num_tokens
            else (*prefix, *[self._eos_id] * (num_tokens - len(prefix)))
            for group in self._groups
            for prefix in group.prefixes()
        ]

    def num_taken(self, token_ids: Sequence[Sequence[int]]) -> int:
        """All candidates."""
        return len(token_ids[0])

    def advance(
        self,
        token_ids: Sequence[Sequence[int]],
        log_probabilities: Sequence[Sequence[float]],
        scores: Sequence[Sequence[float]] | None = None,
    ) -> list[CacheCopy]:
        """Advance each group with the candidates of its rows."""
        copies: list[CacheCopy] = []
        ranked = log_probabilities if scores is None else scores
        candidates = RowCandidates(token_ids, log_probabilities, ranked)
        self._begin_step(candidates)
        for number, group in enumerate(self._groups):
            if group.is_finished:
                continue
            first = number * self._width
            moved = self._advance(number, candidates.rows(first, self._width))
            if not group.is_finished:
                copies += [
                    CacheCopy(first + row, first + parent, start, stop)
                    for row, parent, start, stop in moved
                ]
        self._update()
        return copies

    def end_loops(self, loops: Mapping[int, int]) -> None:
        """End hypotheses that repeat themselves, in each group by itself."""
        for number, group in enumerate(self._groups):
            first = number * self._width
            own = {row - first: n for row, n in loops.items() if 0 <= row - first < self._width}
            if own and not group.is_finished:
                group.end_loops(own)
        self._update()

    @property
    def num_settled(self) -> int:
        """Length of `settled_prefix`."""
        return len(self.settled_prefix())

    def settled_prefix(self) -> tuple[int, ...]:
        """The common prefix of the hypotheses of all groups that can have any."""
        prefixes = [
            group.settled_prefix()
            for group in self._groups
            if not group.is_finished or group.hypotheses()
        ]
        return tuple(commonprefix(prefixes))

    def hypotheses(self) -> list[Hypothesis]:
        """The ``num_hypotheses`` best hypotheses in their order."""
        raise NotImplementedError

    def _begin_step(self, candidates: RowCandidates) -> None:
        """Prepare a step, before the first group advances."""

    def _advance(self, number: int, candidates: RowCandidates) -> Sequence[CacheCopy]:
        """Advance one group with the candidates of its rows; returns its copies."""
        raise NotImplementedError

    def _next_tokens(self) -> list[int]:
        return list(chain.from_iterable(group.next_tokens for group in self._groups))

    def _update(self) -> None:
        self.next_tokens = self._next_tokens()
        self.is_finished = all(group.is_finished for group in self._groups)


class DiverseBeamSearch(GroupedSearch):
    """Diverse beam search (Vijayakumar et al. 2016) with a Hamming penalty.

    Each group is a beam search of ``beam_size`` / ``num_beam_groups`` beams. The groups take turns
    at each step: a token that beams of earlier groups continue with, at the same position, loses
    ``diversity_penalty`` in the ranking for each of these beams. The end token is not penalized.
    """

    _groups: Sequence[BeamSearch]

    def __init__(self, options: SearchOptions, start_token_id: int, eos_id: int) -> None:
        width = options.beam_size // options.num_beam_groups
        of_group = options._replace(beam_size=width, num_hypotheses=width)
        groups = [
            BeamSearch(of_group, start_token_id, eos_id) for _ in range(options.num_beam_groups)
        ]
        super().__init__(groups, options, eos_id)
        self._num_beams = Counter[int]()
        """Beams of this step's groups so far, by the tokens that they continue with."""

    def _begin_step(self, candidates: RowCandidates) -> None:
        self._num_beams.clear()

    def _advance(self, number: int, candidates: RowCandidates) -> Sequence[CacheCopy]:
        group, (token_ids, log_probabilities, scores) = self._groups[number], candidates
        if self._num_beams:
            penalty, num_beams = self._options.diversity_penalty, self._num_beams
            scores = [
                [score - penalty * num_beams[token] for token, score in zip(*row, strict=True)]
                for row in zip(token_ids, scores, strict=True)
            ]
        copies = group.advance(token_ids, log_probabilities, scores)
        if not group.is_finished and group.num_tokens > len(self._options.forced_token_ids):
            self._num_beams.update(group.running_tokens())
        return copies

    def hypotheses(self) -> list[Hypothesis]:
        """The best hypothesis of each group, best first, then the second ones, and so on.

        The same hypothesis of several groups comes once.
        """
        ranks = zip_longest(*(group.hypotheses() for group in self._groups))
        ordered = [
            hypothesis
            for rank in ranks
            for hypothesis in sorted(filter(None, rank), key=lambda each: -each.score)
        ]
        different = {each.token_ids: each for each in reversed(ordered)}
        found = [each for each in ordered if different[each.token_ids] is each]
        return found[: self._options.num_hypotheses]


class AlternativesSearch(GroupedSearch):
    """Continues each of the ``num_alternatives`` likeliest tokens after the forced tokens.

    Each alternative is a group: a search of ``beam_size`` beams for the best continuation, of which
    it gives one hypothesis.
    """

    def __init__(self, options: SearchOptions, start_token_id: int, eos_id: int) -> None:
        of_group = options._replace(num_alternatives=1, num_hypotheses=1)
        kind = GreedySearch if options.beam_size == 1 else BeamSearch
        groups: list[Group] = [
            kind(of_group, start_token_id, eos_id) for _ in range(options.num_alternatives)
        ]
        super().__init__(groups, options, eos_id)
        self._first_tokens: list[RowCandidates] = []
        """The first token of each alternative, during the step that chooses them."""

    def _begin_step(self, candidates: RowCandidates) -> None:
        self._first_tokens.clear()
        if self.num_tokens == len(self._options.forced_token_ids):
            # All rows have the same tokens so far: the candidates of the first one decide.
            scores = candidates.scores[0]
            ranks = sorted(range(len(scores)), key=lambda rank: -scores[rank])
            self._first_tokens += [candidates.only(rank, self._width) for rank in ranks]

    def _advance(self, number: int, candidates: RowCandidates) -> Sequence[CacheCopy]:
        group = self._groups[number]
        if number < len(self._first_tokens):
            candidates = self._first_tokens[number]
        elif self._first_tokens:  # the vocabulary has fewer tokens
            candidates = RowCandidates([[self._eos_id]], [[-inf]], [[-inf]]).only(0, self._width)
        elif self._width == 1:  # several candidates would be those of several tokens
            candidates = candidates.only(0, 1)
        return group.advance(*candidates)

    def hypotheses(self) -> list[Hypothesis]:
        """The best hypothesis of each alternative, in the order of their tokens' probabilities."""
        return [each for group in self._groups for each in group.hypotheses()]
