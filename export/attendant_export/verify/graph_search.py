"""A simple greedy and beam search over the graphs of a decoder.

Written for obvious correctness, not for speed. As in the server, sentences may join and leave at
any step. Works on token ids.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from attendant_export.verify.graph_sessions import Array, DecoderGraphs, check_finite
from attendant_export.verify.reference_cache import ReferenceCache, sentences_in_memory
from attendant_export.verify.reference_search import ReferenceHypothesis, SearchStep, SearchTrace

ALWAYS_RUNNING = 8
"""Number of sentences that run together whatever memory their caches take."""


@dataclass(frozen=True, slots=True)
class SearchRules:
    """Rules for all outputs of a search.

    With one of the last three, a step must decode one token in a run.
    """

    length_penalty: float = 1.0
    early_stopping: bool = False
    """Whether a search is over when as many hypotheses as the beam size have finished."""
    suppressed_token_ids: Sequence[int] = ()
    """Tokens that are never chosen."""
    no_repeat_ngram_size: int = 0
    """Size of the n-grams that never repeat."""
    min_tokens: int = 0
    """The least number of tokens before EOS."""
    repetition_penalty: float = 1.0
    """Penalty of the tokens of an output and of the start token."""


@dataclass(slots=True)
class SentenceSearch:
    """The hypotheses of one sentence. Beam size 1 is greedy search."""

    number: int
    beam_size: int
    max_tokens: int
    eos_id: int
    first_token: int
    """The first input token."""
    num_past: int = 0
    """Number of positions before it."""
    forced: Sequence[int] = ()
    """Tokens that every hypothesis begins with."""
    rules: SearchRules = SearchRules()
    running: list[ReferenceHypothesis] = field(default_factory=list)
    finished: list[ReferenceHypothesis] = field(default_factory=list)
    steps: list[SearchStep] = field(default_factory=list)

    def advance(self, ids: Array, log_p: Array) -> list[int]:
        """Add a step of candidates, each (width, candidates). Returns each new row's parent row."""
        if forced := self.next_forced(1):
            ids, log_p = np.full((self.beam_size, 1), forced[0]), np.zeros((self.beam_size, 1))
        beams = self.running or [ReferenceHypothesis((), ())]
        expanded = [
            (beam.followed_by(int(token), float(value)), row)
            for row, beam in enumerate(beams)
            for token, value in zip(ids[row], log_p[row], strict=True)
        ]
        expanded.sort(key=lambda candidate: -sum(candidate[0].log_probabilities))
        expanded = expanded[: 2 * self.beam_size]
        best = [hypothesis for hypothesis, _ in expanded[: self.beam_size]]
        ended = [h for h in best if h.token_ids[-1] == self.eos_id]
        going_on = [(h, row) for h, row in expanded if h.token_ids[-1] != self.eos_id]
        self.running = [h for h, _ in going_on[: self.beam_size]]
        self.steps.append(SearchStep(best, self.running))
        self._finish([*ended, *(self.running if len(self.steps) == self.max_tokens else [])])
        return [row for _, row in going_on[: self.beam_size]]

    def next_forced(self, num_tokens: int) -> Sequence[int]:
        """The forced ones of the next ``num_tokens`` tokens."""
        return self.forced[len(self.steps) :][:num_tokens]

    def banned(self, token_ids: Sequence[int]) -> set[int]:
        """The tokens that must not follow ``token_ids``, which begin with the start token."""
        banned = set[int]()
        if size := self.rules.no_repeat_ngram_size:
            banned = _repeating(token_ids, size)
        return banned | {self.eos_id} if len(self.steps) < self.rules.min_tokens else banned

    def _finish(self, hypotheses: list[ReferenceHypothesis]) -> None:
        self.finished += hypotheses
        self.finished.sort(key=lambda h: -h.score(self.rules.length_penalty))
        del self.finished[self.beam_size :]

    def is_over(self) -> bool:
        """Whether no running hypothesis can still replace a finished one."""
        if len(self.steps) == self.max_tokens:
            return True
        if not self.running:  # before the first step, or if all hypotheses have ended
            return bool(self.steps)
        is_full = len(self.finished) == self.beam_size
        if self.rules.early_stopping:
            return is_full
        penalty = self.rules.length_penalty
        best = max(h.score(penalty) for h in self.running)
        return is_full and best <= self.finished[-1].score(penalty)


def _repeating(token_ids: Sequence[int], size: int) -> set[int]:
    """The tokens after which ``token_ids`` would have an n-gram of this size twice."""
    ngrams = {tuple(token_ids[i : i + size]) for i in range(len(token_ids) - size + 1)}
    end = tuple(token_ids[len(token_ids) - size + 1 :])
    return {ngram[-1] for ngram in ngrams if ngram[:-1] == end}


def search_all(
    graphs: DecoderGraphs,
    sources: Sequence[Sequence[int]],
    max_tokens: Sequence[int],
    *,
    beam_size: int = 1,
    step: str | None = None,
    max_running: int = 64,
    max_joining: int = 64,
    uses_shortlists: bool = False,
    forced_token_ids: Sequence[Sequence[int]] = (),
    rules: SearchRules = SearchRules(),
) -> list[SearchTrace]:
    """Search all ``sources`` in order, at most ``max_running`` at a time.

    Fewer run if their caches would take too much memory. At most ``max_joining`` sentences join
    between two steps. A sentence leaves when its search is over. ``max_tokens`` limits each output.
    ``step`` is one of `DecoderGraphs.steps_for`, by default the first one. Without
    ``uses_shortlists``, a step with shortlists gets the whole vocabulary as its list.
    ``forced_token_ids`` holds the tokens that each output begins with, with a log-probability of 0.
    Returns the searches in the order of ``sources``.
    """
    forced = forced_token_ids or [()] * len(sources)
    waiting = deque(
        SentenceSearch(
            *(i, beam_size, limit, graphs.special_tokens.eos_id),
            *(graphs.first_token(sources[i]), graphs.num_past(len(sources[i]))),
            *(forced[i], rules),
        )
        for i, limit in enumerate(max_tokens)
    )
    step = step or graphs.steps_for(beam_size, uses_shortlists)[0]
    longest = max(map(len, sources)), max(max_tokens)
    fitting = sentences_in_memory(graphs, graphs.steps[step], beam_size, *longest)
    max_running = min(max_running, max(fitting, ALWAYS_RUNNING))
    cache = ReferenceCache(
        *(graphs, step, beam_size, max_running, *longest),
        uses_shortlists=uses_shortlists,
        suppressed_token_ids=rules.suppressed_token_ids,
    )
    running: list[SentenceSearch] = []
    traces: dict[int, SearchTrace] = {}
    while waiting or running:
        num_joining = min(max_joining, max_running - len(running), len(waiting))
        joining = [waiting.popleft() for _ in range(num_joining)]
        if joining:
            cache.join([sources[search.number] for search in joining])
        running += joining
        _step(cache, running)
        for search in _leaving(cache, running):
            traces[search.number] = SearchTrace(search.finished, search.steps)
    return [traces[i] for i in range(len(sources))]


def _leaving(cache: ReferenceCache, running: list[SentenceSearch]) -> Iterator[SentenceSearch]:
    """The searches that are over, whose slots become free."""
    for slot in reversed(range(len(running))):
        search = running[slot]
        if search.is_over():
            cache.leave(slot)
            running[slot] = running[-1]
            running.pop()
            yield search


def _step(cache: ReferenceCache, running: list[SentenceSearch]) -> None:
    beam_size = running[0].beam_size
    rows: list[tuple[int, ...]] = []
    lengths, banned = [], []
    for search in running:
        first = search.first_token
        begun = [(first, *h.token_ids) for h in search.running] or [(first,)]
        # Before its first own token a sentence has one hypothesis, so its rows have equal tokens.
        begun += begun[-1:] * (beam_size - len(begun))
        rows += begun
        lengths += [search.num_past + len(search.steps)] * beam_size
        banned += [search.banned(tokens) for tokens in begun]
    assert not any(banned) or cache.num_step_tokens == 1
    penalty = running[0].rules.repetition_penalty
    ids, log_p = cache.step(
        *([row[-1] for row in rows], lengths, 2 * beam_size if beam_size > 1 else 1),
        # Only later tokens of a run depend on those that the graph chooses itself.
        [search.next_forced(cache.num_step_tokens) for search in running] if beam_size == 1 else (),
        banned,
        rows if penalty != 1 else (),
        penalty,
    )
    for slot, search in enumerate(running):
        if beam_size > 1:
            check_finite(cache.graph, log_p[slot])
            cache.reorder(slot, search.advance(ids[slot], log_p[slot]))
            continue
        for i in range(ids.shape[2]):
            if not search.is_over():  # Tokens after EOS are undefined.
                check_finite(cache.graph, log_p[slot, :, i])
                search.advance(ids[slot, :, i : i + 1], log_p[slot, :, i : i + 1])


def greedy_uncached(
    graphs: DecoderGraphs, step: str, source: Sequence[int], max_tokens: int
) -> ReferenceHypothesis:
    """Greedy search for one sentence with newly encoded source and empty caches at every step.

    Every token is therefore computed from the whole prefix. ``step`` names a graph that decodes one
    token per run.
    """
    eos_id = graphs.special_tokens.eos_id
    found = ReferenceHypothesis((), ())
    while len(found.token_ids) < max_tokens and eos_id not in found.token_ids:
        encoded, stepped = graphs.uncached(source, found.token_ids)
        cache = ReferenceCache(graphs, step, 1, 1, len(encoded), max_tokens)
        cache.join([encoded])
        for length, token in enumerate(stepped, start=graphs.num_past(len(encoded))):
            ids, log_p = cache.step([token], [length], 1)
        check_finite(step, log_p)
        found = found.followed_by(ids.item(), log_p.item())
    return found
