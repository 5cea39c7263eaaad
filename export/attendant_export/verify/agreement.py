"""Agreement of searches: equal tokens, ties, and differences of log-probabilities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from attendant_export.verify.bounds import largest
from attendant_export.verify.graph_sessions import DecoderGraphs
from attendant_export.verify.reference_search import ReferenceHypothesis, SearchStep, SearchTrace

TokenIds = tuple[int, ...]
Rescore = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[list[float]]]
"""Returns the log-probability of every token of the targets, given the sources."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Numbers of sentences whose tokens are equal, differ in a tie, or differ otherwise."""

    num_identical: int
    num_ties: int
    num_parted: int


def trace_of(hypothesis: ReferenceHypothesis) -> SearchTrace:
    """The trace of a greedy search: each step keeps one candidate, and the last one ends."""
    length = len(hypothesis.token_ids)
    prefixes = [
        ReferenceHypothesis(hypothesis.token_ids[:i], hypothesis.log_probabilities[:i])
        for i in range(1, length + 1)
    ]
    steps = [SearchStep([p], [p] if len(p.token_ids) < length else []) for p in prefixes]
    return SearchTrace([hypothesis], steps)


def difference(a: ReferenceHypothesis, b: ReferenceHypothesis) -> float:
    """Largest difference between log-probabilities up to the first different token."""
    differences = []
    for i, (x, y) in enumerate(zip(a.token_ids, b.token_ids, strict=False)):
        if x != y:
            break
        differences.append(abs(a.log_probabilities[i] - b.log_probabilities[i]))
    return largest(differences)


def scorer_difference(
    graphs: DecoderGraphs,
    sources: Sequence[Sequence[int]],
    hypotheses: Sequence[ReferenceHypothesis],
) -> float:
    """Largest difference between log-probabilities of ``hypotheses`` and those of the scorer."""
    scored = graphs.score(sources, [h.token_ids for h in hypotheses])
    return largest(
        abs(ours - theirs)
        for hypothesis, values in zip(hypotheses, scored, strict=True)
        for ours, theirs in zip(hypothesis.log_probabilities, values, strict=True)
    )


def compare(
    sources: Sequence[Sequence[int]],
    reference: Sequence[SearchTrace],
    found: Sequence[SearchTrace],
    rescore: Rescore,
    bound: float,
) -> Agreement:
    """Compare best hypotheses token by token.

    A different hypothesis is a tie if the searches parted on nearly equal candidates. At the first
    step where they keep different candidates, every candidate that only one search keeps must have
    a log-probability, by ``rescore``, within twice ``bound`` of those that only the other keeps.
    """
    num_identical = num_ties = 0
    for source, ours, theirs in zip(sources, reference, found, strict=True):
        if ours.hypotheses[0].token_ids == theirs.hypotheses[0].token_ids:
            num_identical += 1
        elif gap(source, ours, theirs, rescore) < 2 * bound:
            num_ties += 1
    return Agreement(num_identical, num_ties, len(found) - num_identical - num_ties)


def gap(
    source: Sequence[int],
    reference: SearchTrace,
    found: SearchTrace,
    rescore: Rescore,
    length_penalty: float = 1.0,
) -> float:
    """How nearly equal the candidates are where two searches part: 0 for an exact tie."""
    for ours, theirs in zip(reference.steps, found.steps, strict=False):
        if pairs := _parting(ours, theirs):
            ids = list({ids for pair in pairs for ids in pair})
            sums = dict(zip(ids, map(sum, rescore([source] * len(ids), ids)), strict=True))
            return largest(abs(sums[a] - sums[b]) for a, b in pairs)
    # All steps kept the same candidates, so the finished hypotheses were ranked differently.
    a, b = reference.hypotheses[0], found.hypotheses[0]
    scores = [
        ReferenceHypothesis(each.token_ids, tuple(values)).score(length_penalty)
        for each, values in zip(
            (a, b), rescore([source] * 2, [a.token_ids, b.token_ids]), strict=True
        )
    ]
    return abs(scores[0] - scores[1])


def _parting(ours: SearchStep, theirs: SearchStep) -> list[tuple[TokenIds, TokenIds]]:
    """Pairs of candidates of which each search keeps a different one; empty if both keep the same.

    Compares the best candidates and the running ones separately, since each is a separate choice.
    The order of candidates that both keep does not matter.
    """
    best, running = (
        (_token_ids(a), _token_ids(b))
        for a, b in ((ours.best, theirs.best), (ours.running, theirs.running))
    )
    if best[0] | running[0] == best[1] | running[1]:
        return []
    return [pair for a, b in (best, running) for pair in product(a - b, b - a)]


def _token_ids(hypotheses: Sequence[ReferenceHypothesis]) -> set[TokenIds]:
    return {hypothesis.token_ids for hypothesis in hypotheses}
