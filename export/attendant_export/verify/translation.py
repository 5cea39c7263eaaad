"""Compares the graphs of a translation bundle with the PyTorch model that they came from.

Compares log-probabilities and the tokens of whole searches: single sentences, all in one batch,
joining and leaving at different steps, and uncached. Works on token ids and does not depend on text
or files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product

from attendant.v1.bundle_pb2 import Alignment, PrecisionParity, TokenParity
from attendant_manifest.rules import MAX_LOG_PROBABILITY_BOUNDS

from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.progress import progress
from attendant_export.verify import reference_search as search
from attendant_export.verify.alignment import aligner_difference, choose_heads
from attendant_export.verify.bounds import FP32_BOUND, largest, stated_bound
from attendant_export.verify.graph_search import greedy_uncached, search_all
from attendant_export.verify.graph_sessions import ParityError, TranslationGraphs
from attendant_export.verify.reference_search import ReferenceHypothesis, SearchStep, SearchTrace

SEARCHES = {"greedy": 1, "beam4": 4}
"""Beam size of each compared search."""
NUM_UNCACHED = 16
"""Number of sentences that are also decoded without caches, if their outputs are short."""
MAX_UNCACHED_RUNS = 1000
"""Number of runs of a graph for these. An output of n tokens takes n * (n + 1) / 2."""

NUM_ALIGNED = 8
"""Sentences by which aligners are compared with the model."""
TokenIds = tuple[int, ...]
Rescore = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[list[float]]]
"""Returns the log-probability of every token of the targets, given the sources."""


@dataclass(frozen=True, slots=True)
class SampleSentences:
    """Token ids of sources and limits of output tokens, for the comparison of searches."""

    sources: list[list[int]]
    max_tokens: list[int]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Numbers of sentences whose tokens are equal, differ in a tie, or differ otherwise."""

    num_identical: int
    num_ties: int
    num_parted: int


@dataclass(frozen=True, slots=True)
class Run:
    """One way of running a search, with its results for the first sentences of a sample."""

    search: str
    step: str
    batching: str
    cached: bool
    traces: list[SearchTrace]


@dataclass(frozen=True, slots=True)
class VerifiedPrecision:
    """The comparison of one precision, with its best hypotheses in each search."""

    parity: PrecisionParity
    outputs: dict[str, list[ReferenceHypothesis]]


class TranslationVerifier:
    """Searches once with the PyTorch model, then compares each precision with it."""

    def __init__(self, model: EncoderDecoder, sample: SampleSentences) -> None:
        """Raises ParityError if the model gives other log-probabilities without caches."""
        self._model, self._sample = model, sample
        pairs = list(zip(sample.sources, sample.max_tokens, strict=True))
        greedy = progress(pairs, "greedy search with the model")
        best = [search.greedy(model, [s], limit)[0] for s, limit in greedy]
        self._greedy_tokens = [hypothesis.token_ids for hypothesis in best]
        self._traces = {
            name: [
                search.beam(model, s, size, limit)
                for s, limit in progress(pairs, f"{name} search with the model")
            ]
            for name, size in SEARCHES.items()
            if size > 1
        }
        self._traces["greedy"] = [trace_of(hypothesis) for hypothesis in best]
        for traces in self._traces.values():
            search.check_cached(model, sample.sources, [trace.hypotheses[0] for trace in traces])

    def verify(self, precision: str, graphs: TranslationGraphs) -> VerifiedPrecision:
        """Compare ``graphs`` with the model.

        Raises ParityError if a result depends on the other sentences of a batch, if a result is NaN
        or infinity, or if fp32 differs from the model.
        """
        runs = run_in_all_ways(graphs, self._sample)
        single = [r for r in runs if r.cached and r.batching == "single"]
        # The reference is the graph that a CPU uses, which comes first.
        alone = {r.search: r.traces for r in reversed(single)}
        bound = self._bound(precision, graphs, runs, alone)
        greedy = [r.traces for r in single if r.search == "greedy"]
        difference = self._difference_to_model(graphs, greedy)
        tokens = [self._compare(run, bound) for run in runs]
        if precision == "fp32":
            check_fp32(difference, tokens)
        parity = PrecisionParity(
            precision=precision,
            max_log_probability_difference=difference,
            log_probability_bound=bound,
            tokens=tokens,
        )
        if graphs.aligner is not None:
            parity.max_alignment_difference = self._check_aligner(precision, graphs)
        outputs = {name: [t.hypotheses[0] for t in traces] for name, traces in alone.items()}
        return VerifiedPrecision(parity, outputs)

    @cached_property
    def alignment(self) -> Alignment:
        """The heads that align words."""
        return choose_heads(self._model, self._sample.sources, self._greedy_tokens)

    def _check_aligner(self, precision: str, graphs: TranslationGraphs) -> float:
        """Largest difference of the aligner to the model; raises ParityError for fp32."""
        pairs = self._sample.sources[:NUM_ALIGNED], self._greedy_tokens[:NUM_ALIGNED]
        found = aligner_difference(graphs, self._model, self.alignment, *pairs)
        if precision == "fp32" and not found <= FP32_BOUND:  # also true for NaN
            raise ParityError(
                f"fp32: the aligner differs from the model by {found:.2g}, at most {FP32_BOUND:.0e}"
            )
        return found

    def _compare(self, run: Run, bound: float) -> TokenParity:
        num_sentences = len(run.traces)
        agreement = compare(
            self._sample.sources[:num_sentences],
            self._traces[run.search][:num_sentences],
            run.traces,
            lambda sources, targets: search.score(self._model, sources, targets),
            bound,
        )
        return TokenParity(
            search=run.search,
            step=run.step,
            batching=run.batching,
            cached=run.cached,
            num_sentences=num_sentences,
            num_identical=agreement.num_identical,
            num_ties=agreement.num_ties,
        )

    def _difference_to_model(
        self, graphs: TranslationGraphs, greedy: Sequence[list[SearchTrace]]
    ) -> float:
        """Largest difference of the scorer and of cached steps to the model, while tokens agree."""
        sources, targets = self._sample.sources, self._greedy_tokens
        expected = search.score(self._model, sources, targets)
        references = [
            ReferenceHypothesis(ids, tuple(values))
            for ids, values in zip(targets, expected, strict=True)
        ]
        steps = (
            difference(reference, trace.hypotheses[0])
            for traces in greedy
            for reference, trace in zip(references, traces, strict=True)
        )
        return largest([*steps, scorer_difference(graphs, sources, references)])

    def _bound(
        self,
        precision: str,
        graphs: TranslationGraphs,
        runs: Sequence[Run],
        alone: dict[str, list[SearchTrace]],
    ) -> float:
        """The bound for changes of log-probabilities between batches, graphs and cache use."""
        differences = [
            difference(one.hypotheses[0], other.hypotheses[0])
            for run in runs
            for one, other in zip(alone[run.search], run.traces, strict=False)
        ]
        for traces in alone.values():
            best = [trace.hypotheses[0] for trace in traces]
            differences.append(scorer_difference(graphs, self._sample.sources, best))
        moved = largest(differences)
        bound = stated_bound(precision, moved)
        if not (moved <= bound <= MAX_LOG_PROBABILITY_BOUNDS[precision]):
            raise ParityError(
                f"{precision}: log-probabilities differ by {moved:.2g} between batches; "
                f"the bound is {MAX_LOG_PROBABILITY_BOUNDS[precision]:.2g}"
            )
        self._check_batching(precision, graphs, runs, alone, bound)
        return bound

    def _check_batching(
        self,
        precision: str,
        graphs: TranslationGraphs,
        runs: Sequence[Run],
        alone: dict[str, list[SearchTrace]],
        bound: float,
    ) -> None:
        for run in runs:
            num_sentences = len(run.traces)
            sources, expected = self._sample.sources, alone[run.search]
            agreement = compare(
                sources[:num_sentences], expected[:num_sentences], run.traces, graphs.score, bound
            )
            if agreement.num_parted:
                raise ParityError(
                    f"{precision}: {run.search} {run.batching} by {run.step} finds different "
                    "tokens than for each sentence alone, and not because of ties"
                )


def run_in_all_ways(graphs: TranslationGraphs, sample: SampleSentences) -> list[Run]:
    """All searches, step graphs and batchings; and uncached greedy for the first sentences."""
    sources, limits = sample.sources, sample.max_tokens
    # Limits of running sentences and of sentences that join at once.
    batchings = {"single": (1, 1), "batched": (len(sources), len(sources)), "ragged": (8, 1)}
    runs = []
    for name, size in SEARCHES.items():
        ways = list(product(graphs.steps_for(size), batchings.items()))
        for step, (batching, (max_running, max_joining)) in progress(ways, f"{name} search"):
            found = search_all(
                *(graphs, sources, limits),
                beam_size=size,
                step=step,
                max_running=max_running,
                max_joining=max_joining,
            )
            runs.append(Run(name, step, batching, True, found))
    num_uncached = _num_uncached(runs[0].traces)
    for step in filter(lambda name: graphs.num_step_tokens(name) == 1, graphs.steps_for(1)):
        uncached = [
            trace_of(greedy_uncached(graphs, step, source, limit))
            for source, limit in zip(sources[:num_uncached], limits, strict=False)
        ]
        runs.append(Run("greedy", step, "single", False, uncached))
    return runs


def _num_uncached(greedy: Sequence[SearchTrace]) -> int:
    """Number of first sentences whose outputs are short enough for decoding without caches."""
    lengths = [len(trace.hypotheses[0].token_ids) for trace in greedy[:NUM_UNCACHED]]
    num_runs = accumulate(length * (length + 1) // 2 for length in lengths)
    return max(1, sum(total <= MAX_UNCACHED_RUNS for total in num_runs))


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
    graphs: TranslationGraphs,
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


def check_fp32(moved: float, tokens: Sequence[TokenParity]) -> None:
    """Raise ParityError unless fp32 differs from the model by rounding only."""
    problems = []
    if not (moved <= FP32_BOUND):
        problems.append(f"log-probabilities differ by {moved:.2g}, at most {FP32_BOUND:.0e}")
    for entry in tokens:
        num_parted = entry.num_sentences - entry.num_identical - entry.num_ties
        if num_parted:
            cached = "cached" if entry.cached else "uncached"
            problems.append(
                f"{entry.search} {entry.batching} {cached} by {entry.step}: {num_parted} of "
                f"{entry.num_sentences} sentences get other tokens"
            )
    if problems:
        raise ParityError("fp32 graphs do not follow the model: " + "; ".join(problems))
