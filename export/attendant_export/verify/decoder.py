"""Compares the graphs of a decoder with the PyTorch model that they came from.

Compares log-probabilities and the tokens of whole searches: single sentences, all in one batch,
joining and leaving at different steps, and uncached. Works on token ids and does not depend on text
or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, product

from attendant.v1.bundle_pb2 import PrecisionParity, TokenParity
from attendant_manifest.rules import MAX_LOG_PROBABILITY_BOUNDS

from attendant_export.progress import progress
from attendant_export.verify import reference_search as search
from attendant_export.verify.agreement import compare, difference, scorer_difference, trace_of
from attendant_export.verify.bounds import FP32_BOUND, largest, stated_bound
from attendant_export.verify.graph_search import greedy_uncached, search_all
from attendant_export.verify.graph_sessions import DecoderGraphs, ParityError
from attendant_export.verify.reference_search import DecoderModel, ReferenceHypothesis, SearchTrace

SEARCHES = {"greedy": 1, "beam4": 4}
"""Beam size of each compared search."""
NUM_UNCACHED = 16
"""Number of sentences that are also decoded without caches, if their outputs are short."""
MAX_UNCACHED_RUNS = 1000
"""Number of runs of a graph for these. An output of n tokens takes n * (n + 1) / 2."""


@dataclass(frozen=True, slots=True)
class SampleSentences:
    """Token ids of sources and limits of output tokens, for the comparison of searches.

    The sources of a language model are prompts.
    """

    sources: list[list[int]]
    max_tokens: list[int]


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


class DecoderVerifier:
    """Searches once with the PyTorch model, then compares each precision with it."""

    def __init__(self, model: DecoderModel, sample: SampleSentences) -> None:
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

    def verify(self, precision: str, graphs: DecoderGraphs) -> VerifiedPrecision:
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
        outputs = {name: [t.hypotheses[0] for t in traces] for name, traces in alone.items()}
        return VerifiedPrecision(parity, outputs)

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
        self, graphs: DecoderGraphs, greedy: Sequence[list[SearchTrace]]
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
        graphs: DecoderGraphs,
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
        graphs: DecoderGraphs,
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


def run_in_all_ways(graphs: DecoderGraphs, sample: SampleSentences) -> list[Run]:
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
