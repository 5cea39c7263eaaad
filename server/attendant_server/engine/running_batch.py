"""The running sentences of one search width and step graph, and their slots.

The slots in use are always the first slots, so a step runs over a contiguous part of the caches. A
new sentence takes the slot after the last one. When a sentence leaves, the last slot moves into its
slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from attendant_server.engine.calls import TranslateCall
from attendant_server.engine.greedy_search import GreedySearch
from attendant_server.engine.models import (
    NO_PENALTIES,
    CacheCopy,
    Candidates,
    DecoderCache,
    EncodedSource,
    RowStart,
    StepInput,
    TokenBias,
    TokenPenalties,
)
from attendant_server.engine.repetition_guard import RepetitionGuard, Rewind
from attendant_server.engine.repetition_penalty import token_penalties
from attendant_server.engine.search import Search
from attendant_server.engine.token_rules import SuppressedTokens, TokenBiases, TokenRule


@dataclass(slots=True, eq=False)
class Sentence:
    """One text of a `TranslateCall` on its way through the engine."""

    call: TranslateCall
    index: int
    search: Search
    start: RowStart
    num_source_tokens: int
    max_output_tokens: int
    rules: Sequence[TokenRule] = ()
    repetition_penalty: float = 1.0
    guard: RepetitionGuard | None = None
    num_settled: int = field(default=0)
    """Tokens of the settled prefix that were reported to the caller."""

    @property
    def width(self) -> int:
        """Rows that the sentence needs."""
        return self.search.width

    @property
    def num_positions(self) -> int:
        """Cache positions that each row holds."""
        return self.start.num_positions + self.search.num_tokens

    @property
    def longest_row(self) -> int:
        """Cache positions of a row at the output limit."""
        return self.start.num_positions + self.max_output_tokens

    @property
    def one_token_steps(self) -> bool:
        """Whether its options forbid steps of several tokens, which greedy search allows."""
        return self.width == 1 and (
            self.search.num_candidates > 1
            or self.repetition_penalty != 1
            or self._has_prefix
            or any(rule.needs_tokens for rule in self.rules)
        )

    @property
    def _has_prefix(self) -> bool:
        """Whether the caller gave the beginning of the hypotheses.

        A step of several tokens could not follow its tokens, which a shortlist may lack.
        """
        return bool(self.call.prefixes and self.call.prefixes[self.index])


@dataclass(frozen=True, slots=True)
class Ended:
    """The sentences that left their slots after a step."""

    finished: list[Sentence]
    without_result: list[Sentence]
    """Sentences for which the model returned NaN."""


class RunningBatch:
    """Sentences that are searched with ``width`` rows each, at most ``max_slots`` together.

    Each step returns ``num_candidates`` candidates for a row.
    """

    def __init__(
        self,
        width: int,
        max_slots: int,
        cache: DecoderCache,
        num_candidates: int,
    ) -> None:
        self.width, self.max_slots = width, max_slots
        self.sentences: list[Sentence] = []
        self._cache, self._num_candidates = cache, num_candidates
        self._biases = TokenBiases(width)
        self._tokens = np.zeros(max_slots * width, dtype=np.int64)
        self._lengths = np.zeros(max_slots * width, dtype=np.int32)
        self._rows = [slice(slot * width, (slot + 1) * width) for slot in range(max_slots)]
        """The rows of each slot."""

    @property
    def num_rows(self) -> int:
        """Rows in use."""
        return len(self.sentences) * self.width

    def join(self, sentence: Sentence, source: EncodedSource) -> None:
        """Give the sentence the next slot."""
        assert len(self.sentences) < self.max_slots
        assert not (sentence.one_token_steps and self._cache.num_step_tokens > 1)
        slot = len(self.sentences)
        try:
            self._cache.load(slot, source)
        except Exception:
            self._release_if_empty()
            raise
        self._tokens[self._rows[slot]] = sentence.start.token_id
        self._lengths[self._rows[slot]] = sentence.num_positions
        self.sentences.append(sentence)

    def leave(self, slot: int) -> None:
        """Free a slot, moving the last one into it."""
        last = len(self.sentences) - 1
        if slot != last:
            self._cache.move(last, slot, self.sentences[last].num_positions)
            self._tokens[self._rows[slot]] = self._tokens[self._rows[last]]
            self._lengths[self._rows[slot]] = self._lengths[self._rows[last]]
            self.sentences[slot] = self.sentences[last]
        self.sentences.pop()
        self._release_if_empty()

    def clear(self) -> None:
        """Free all slots."""
        self.sentences.clear()
        self._release_if_empty()

    def drop(self, unwanted: set[Sentence]) -> None:
        """Free the slots of these sentences."""
        for slot in reversed(range(len(self.sentences))):
            if self.sentences[slot] in unwanted:
                self.leave(slot)
        if self.sentences:
            self._cache.keep(len(self.sentences), int(self._lengths[: self.num_rows].max()))

    def step(self) -> Ended:
        """Run one step for every row; returns the ended sentences, which have left their slots."""
        num_rows, num_tokens = self.num_rows, self._cache.num_step_tokens
        candidates = self._cache.step(
            len(self.sentences),
            StepInput(
                self._tokens[:num_rows],
                self._lengths[:num_rows],
                self._num_candidates,
                self._token_biases(),
                self._penalties() if self._cache.takes_penalties else NO_PENALTIES,
            ),
        )
        self._lengths[:num_rows] += num_tokens
        without_result = self._without_result(candidates)
        self._advance(
            candidates.token_ids.tolist(),
            candidates.log_probabilities.tolist(),
            None if candidates.scores is None else candidates.scores.tolist(),
            set(without_result),
        )
        finished = [s for s in self.sentences if s.search.is_finished]
        if finished or without_result:
            self.drop({*finished, *without_result})
        return Ended(finished, without_result)

    def _without_result(self, candidates: Candidates) -> list[Sentence]:
        """The sentences whose next candidates are NaN."""
        if not np.isnan(candidates.log_probabilities.max()):  # max() propagates NaN
            return []
        found = []
        for slot, sentence in enumerate(self.sentences):
            rows = self._rows[slot]
            num_taken = sentence.search.num_taken(candidates.token_ids[rows].tolist())
            if np.isnan(candidates.log_probabilities[rows, :num_taken]).any():
                found.append(sentence)
        return found

    def _advance(
        self,
        token_ids: list[list[int]],
        log_probabilities: list[list[float]],
        scores: list[list[float]] | None,
        without_result: set[Sentence],
    ) -> None:
        """Let every search choose, then copy the caches of beams that continue in several rows."""
        copies: list[CacheCopy] = []
        for slot, sentence in enumerate(self.sentences):
            if sentence in without_result:
                continue
            rows, search = self._rows[slot], sentence.search
            if sentence.call.options.prefix_bias is not None:
                log_probabilities[rows] = _at_most_certain(log_probabilities[rows])
                if scores is not None:
                    scores[rows] = _at_most_certain(scores[rows])
            if scores is None:
                own_copies = search.advance(token_ids[rows], log_probabilities[rows])
            else:
                own_copies = search.advance(token_ids[rows], log_probabilities[rows], scores[rows])
            if isinstance(search, GreedySearch) and search.is_blocked:
                self._unblock(slot, search)
                continue
            guard, is_finished = sentence.guard, search.is_finished
            if guard is not None and (is_finished or search.num_tokens >= guard.next_check):
                if (rewind := guard.check(search, self._cache.can_rewind)) is not None:
                    self._rewind(slot, rewind)
                is_finished = search.is_finished
            if is_finished:
                continue
            self._tokens[rows] = search.next_tokens
            first, before = rows.start, sentence.start.num_positions
            copies += [
                CacheCopy(first + row, first + parent, before + start, before + stop)
                for row, parent, start, stop in own_copies
            ]
        if copies:
            self._cache.copy(copies)

    def _rewind(self, slot: int, rewind: Rewind) -> None:
        """Let the row of a slot go on from fewer tokens, with another token than before."""
        sentence, (num_tokens, token_id) = self.sentences[slot], rewind
        rule = SuppressedTokens((token_id,), num_tokens, is_for_next=True)
        sentence.rules = (*sentence.rules, rule)
        self._lengths[self._rows[slot]] = sentence.num_positions

    def _unblock(self, slot: int, search: GreedySearch) -> None:
        """Allow the token of the last rewind again, without a guard from now on."""
        sentence = self.sentences[slot]
        sentence.rules, sentence.guard = sentence.rules[:-1], None
        self._lengths[self._rows[slot]] = sentence.num_positions
        search.unblock()

    def _token_biases(self) -> list[TokenBias]:
        """The biases of all sentences' rules, one for each token that a step decodes."""
        ruled = [
            (slot * self.width, sentence.search, sentence.rules)
            for slot, sentence in enumerate(self.sentences)
            if sentence.rules
        ]
        return self._biases.of(ruled, self._cache.num_step_tokens)

    def _penalties(self) -> TokenPenalties:
        """The repetition penalties of all sentences."""
        penalized = [
            (first_row, each.search, each.repetition_penalty, each.start.begin_token_id)
            for first_row, each in zip(
                range(0, self.num_rows, self.width), self.sentences, strict=True
            )
            if each.repetition_penalty != 1
        ]
        return token_penalties(penalized)

    def _release_if_empty(self) -> None:
        if not self.sentences:
            self._cache.release()


def _at_most_certain(rows: list[list[float]]) -> list[list[float]]:
    """Log-probabilities with a bias, of which those of a row are lowered until none is above 0.

    Otherwise, each biased token would add to the mean log-probability of a hypothesis, and a search
    would prefer to end right after a prefix.
    """
    return [[value - excess for value in row] if (excess := max(row)) > 0 else row for row in rows]
