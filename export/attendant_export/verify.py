"""Holds the graphs of a translation bundle against the model that they were exported from.

Compares log-probabilities and the tokens of whole searches: one sentence alone, all together, and
joining and leaving at different steps. Knows token ids only, no text and no files.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attendant.v1.bundle_pb2 import PrecisionParity, TokenParity

from attendant_export import search
from attendant_export.graph_search import TranslationGraphs, search_all
from attendant_export.search import ReferenceHypothesis, SearchTrace
from attendant_export.transformer import Transformer

SEARCHES = {"greedy": 1, "beam4": 4}
"""Beam size of each search that is compared."""
FP32_BOUND = 1e-4
MAX_BOUNDS = {"fp32": FP32_BOUND, "fp16": 0.1, "int8": 0.5}
"""Log-probabilities that move more than this with their batch mates are no rounding."""

Rescore = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[list[float]]]
"""Log-probability of every token of targets, given sources."""


class ParityError(ValueError):
    """The graphs do not do what the model does, or not the same in every batch."""


@dataclass(frozen=True, slots=True)
class SampleSentences:
    """What the searches are compared on: token ids of sources, and the most tokens of outputs."""

    sources: list[list[int]]
    max_tokens: list[int]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many of the compared sentences got the same tokens, or others for a good reason."""

    num_identical: int
    num_ties: int
    num_parted: int


@dataclass(frozen=True, slots=True)
class VerifiedPrecision:
    """The comparison of one precision, and what its graphs found for each search."""

    parity: PrecisionParity
    outputs: dict[str, list[ReferenceHypothesis]]


class TranslationVerifier:
    """Searches once with the original model, uncached; then compares precision by precision."""

    def __init__(self, model: Transformer, sample: SampleSentences) -> None:
        self._model, self._sample = model, sample
        pairs = list(zip(sample.sources, sample.max_tokens, strict=True))
        best = [search.greedy(model, [s], limit, cached=False)[0] for s, limit in pairs]
        self._greedy_tokens = [hypothesis.token_ids for hypothesis in best]
        self._traces = {
            name: [search.beam(model, s, size, limit) for s, limit in pairs]
            for name, size in SEARCHES.items()
            if size > 1
        }
        self._traces["greedy"] = [trace_of(hypothesis) for hypothesis in best]

    def verify(self, precision: str, graphs: TranslationGraphs) -> VerifiedPrecision:
        """Compare ``graphs`` with the model.

        Raises ParityError if batch mates change a result, or fp32 is not what the model gives.
        """
        found = search_in_all_ways(graphs, self._sample)
        alone = {name: found[name]["single"] for name in SEARCHES}
        bound = self._bound(precision, graphs, found)
        largest = self._largest_difference(graphs, alone["greedy"])
        tokens = [
            self._compare(name, batching, traces, bound)
            for name, batchings in found.items()
            for batching, traces in batchings.items()
        ]
        tokens.append(self._compare_uncached(graphs, bound))
        if precision == "fp32":
            check_fp32(largest, tokens)
        parity = PrecisionParity(
            precision=precision,
            max_log_probability_difference=largest,
            log_probability_bound=bound,
            tokens=tokens,
        )
        outputs = {name: [t.hypotheses[0] for t in traces] for name, traces in alone.items()}
        return VerifiedPrecision(parity, outputs)

    def _compare(
        self, name: str, batching: str, traces: list[SearchTrace], bound: float
    ) -> TokenParity:
        agreement = compare(
            self._sample.sources,
            self._traces[name],
            traces,
            lambda sources, targets: search.score(self._model, sources, targets),
            bound,
        )
        return TokenParity(
            search=name,
            batching=batching,
            cached=True,
            num_sentences=len(traces),
            num_identical=agreement.num_identical,
            num_ties=agreement.num_ties,
        )

    def _compare_uncached(self, graphs: TranslationGraphs, bound: float) -> TokenParity:
        """Whether the scorer, which keeps nothing, prefers the model's tokens to its second best.

        Each position of the model's greedy outputs is one choice between the two.
        """
        sources, targets = self._sample.sources, self._greedy_tokens
        log_p = search.teacher_forced(self._model, sources, targets)
        best_two, ids = log_p.topk(2)  # (batch, target, 2)
        seconds = [row[: len(t), 1].tolist() for row, t in zip(ids, targets, strict=True)]
        scored, scored_seconds = (
            graphs.score(sources, targets),
            graphs.choose(sources, targets, seconds),
        )
        entry = TokenParity(
            search="greedy", batching="batched", cached=False, num_sentences=len(targets)
        )
        for row, first, second in zip(best_two, scored, scored_seconds, strict=True):
            wrong = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if b > a]
            gaps = [(row[i, 0] - row[i, 1]).item() for i in wrong]
            entry.num_identical += not wrong
            entry.num_ties += bool(wrong) and max(gaps) < 2 * bound
        return entry

    def _largest_difference(self, graphs: TranslationGraphs, alone: list[SearchTrace]) -> float:
        """Tensor level: scorer and cached steps against the model, as far as tokens agree."""
        sources, targets = self._sample.sources, self._greedy_tokens
        expected = search.score(self._model, sources, targets)
        largest = 0.0
        for a, b in zip(expected, graphs.score(sources, targets), strict=True):
            largest = max(largest, *(abs(x - y) for x, y in zip(a, b, strict=True)))
        for ids, values, trace in zip(targets, expected, alone, strict=True):
            reference = ReferenceHypothesis(ids, tuple(values))
            largest = max(largest, difference_of_prefix(reference, trace.hypotheses[0]))
        return largest

    def _bound(
        self,
        precision: str,
        graphs: TranslationGraphs,
        found: dict[str, dict[str, list[SearchTrace]]],
    ) -> float:
        """How far log-probabilities move with batch mates, and with and without cache."""
        largest = 0.0
        for batchings in found.values():
            for traces in batchings.values():
                for alone, other in zip(batchings["single"], traces, strict=True):
                    pair = alone.hypotheses[0], other.hypotheses[0]
                    largest = max(largest, difference_of_prefix(*pair))
        greedy = [trace.hypotheses[0] for trace in found["greedy"]["single"]]
        scored = graphs.score(self._sample.sources, [h.token_ids for h in greedy])
        for hypothesis, values in zip(greedy, scored, strict=True):
            uncached = ReferenceHypothesis(hypothesis.token_ids, tuple(values))
            largest = max(largest, difference_of_prefix(hypothesis, uncached))
        bound = FP32_BOUND if precision == "fp32" else max(FP32_BOUND, round_up(2 * largest))
        if max(largest, bound) > MAX_BOUNDS[precision]:
            raise ParityError(
                f"{precision}: log-probabilities differ by {largest:.2g} between batches; "
                f"the bound is {MAX_BOUNDS[precision]:.2g}"
            )
        self._check_batching(precision, graphs, found, bound)
        return bound

    def _check_batching(
        self,
        precision: str,
        graphs: TranslationGraphs,
        found: dict[str, dict[str, list[SearchTrace]]],
        bound: float,
    ) -> None:
        for name, batchings in found.items():
            for batching, traces in batchings.items():
                sources, alone = self._sample.sources, batchings["single"]
                if compare(sources, alone, traces, graphs.score, bound).num_parted:
                    raise ParityError(
                        f"{precision}: {name} {batching} finds other tokens than for each "
                        "sentence alone, and not because of ties"
                    )


def search_in_all_ways(
    graphs: TranslationGraphs, sample: SampleSentences
) -> dict[str, dict[str, list[SearchTrace]]]:
    """Every search, every way of batching: traces by search and batching."""
    sources, limits = sample.sources, sample.max_tokens
    return {
        name: {
            "single": search_all(graphs, sources, limits, beam_size=size, max_running=1),
            "batched": search_all(
                graphs, sources, limits, beam_size=size, max_running=len(sources)
            ),
            "ragged": search_all(
                graphs, sources, limits, beam_size=size, max_running=8, max_joining=1
            ),
        }
        for name, size in SEARCHES.items()
    }


def trace_of(hypothesis: ReferenceHypothesis) -> SearchTrace:
    """The trace of a greedy search: at every step one candidate."""
    prefixes = [
        [ReferenceHypothesis(hypothesis.token_ids[:i], hypothesis.log_probabilities[:i])]
        for i in range(1, len(hypothesis.token_ids) + 1)
    ]
    return SearchTrace([hypothesis], prefixes)


def difference_of_prefix(a: ReferenceHypothesis, b: ReferenceHypothesis) -> float:
    """Largest difference between log-probabilities up to the first different token."""
    largest = 0.0
    pairs = zip(a.token_ids, b.token_ids, strict=False)
    for i, (x, y) in enumerate(pairs):
        if x != y:
            break
        largest = max(largest, abs(a.log_probabilities[i] - b.log_probabilities[i]))
    return largest


def round_up(value: float) -> float:
    """The next number with one significant digit."""
    if value == 0:
        return 0.0
    digit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / digit) * digit:.0e}")


def compare(
    sources: Sequence[Sequence[int]],
    reference: Sequence[SearchTrace],
    found: Sequence[SearchTrace],
    rescore: Rescore,
    bound: float,
) -> Agreement:
    """Compare best hypotheses token by token.

    Others are a tie if, where the searches part, the log-probabilities of the two candidates,
    which ``rescore`` gives, are closer than twice ``bound``.
    """
    num_identical = num_ties = 0
    for source, ours, theirs in zip(sources, reference, found, strict=True):
        if ours.hypotheses[0].token_ids == theirs.hypotheses[0].token_ids:
            num_identical += 1
        elif _gap(source, ours, theirs, rescore) < 2 * bound:
            num_ties += 1
    return Agreement(num_identical, num_ties, len(found) - num_identical - num_ties)


def _gap(
    source: Sequence[int], reference: SearchTrace, found: SearchTrace, rescore: Rescore
) -> float:
    for ours, theirs in zip(reference.steps, found.steps, strict=False):
        for a, b in zip(ours, theirs, strict=False):
            if a.token_ids != b.token_ids:
                ours_p, theirs_p = rescore([source] * 2, [a.token_ids, b.token_ids])
                return abs(sum(ours_p) - sum(theirs_p))
    # The same candidates all the way: the finished hypotheses were ranked differently.
    a, b = reference.hypotheses[0], found.hypotheses[0]
    ours_p, theirs_p = rescore([source] * 2, [a.token_ids, b.token_ids])
    return abs(sum(ours_p) / len(ours_p) - sum(theirs_p) / len(theirs_p))


def check_fp32(largest: float, tokens: Sequence[TokenParity]) -> None:
    """Raise ParityError unless fp32 follows the model to rounding."""
    problems = []
    if largest > FP32_BOUND:
        problems.append(f"log-probabilities differ by {largest:.2g}, at most {FP32_BOUND:.0e}")
    for entry in tokens:
        num_parted = entry.num_sentences - entry.num_identical - entry.num_ties
        if num_parted:
            cached = "cached" if entry.cached else "uncached"
            problems.append(
                f"{entry.search} {entry.batching} {cached}: {num_parted} of "
                f"{entry.num_sentences} sentences get other tokens"
            )
    if problems:
        raise ParityError("fp32 graphs do not follow the model: " + "; ".join(problems))
