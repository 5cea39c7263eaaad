"""Compares an imported translation or language model with the original implementation.

The outputs of a language model are the continuations of its sources, which are prompts.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from attendant.v1.bundle_pb2 import (
    DecodingDefaults,
    OriginalParity,
    OriginalTranslations,
    TokenParity,
)

from attendant_export.verify.agreement import TokenIds, gap
from attendant_export.verify.bounds import FP32_BOUND, largest
from attendant_export.verify.decoder import SEARCHES
from attendant_export.verify.embedding import FloatArray
from attendant_export.verify.graph_search import SearchRules, search_all
from attendant_export.verify.graph_sessions import DecoderGraphs, ParityError
from attendant_export.verify.language_samples import Sample, batches
from attendant_export.verify.original import Implementation, count_other_token_ids
from attendant_export.verify.reference_search import SearchTrace

MAX_COMPARED_TOKENS = 100
BATCH_SIZE = 16
BATCHINGS = {"single": (1, 1), "batched": (BATCH_SIZE, BATCH_SIZE), "ragged": (8, 1)}
"""Limits of running sentences and of sentences that join at once."""
MAX_SAME_MODEL_DIFFERENCE = 1.0
"""Largest mean difference of log-probabilities in a bundle without fp32, to notice another
model."""


class Translator(Implementation, Protocol):
    """Another implementation of a model with a decoder, with the options of its checkpoint."""

    default_beam_size: int
    length_penalty: float

    def sample_ids(self, sample: Sample) -> list[int] | None:
        """The token ids of a text in its language, special tokens included; None if unknown."""

    def translate(
        self, samples: Sequence[Sample], beam_size: int, max_tokens: int
    ) -> list[TokenIds]:
        """The best translation of each sample, in one batch. All have the same forced tokens."""

    def trace(self, sample: Sample, beam_size: int, max_tokens: int) -> SearchTrace:
        """The search for one sample with the candidates of each step."""

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], beam_size: int
    ) -> list[list[float]]:
        """The value by which a search ranks each token of the targets.

        That is its log-probability, after a repetition penalty if the checkpoint has one.
        """

    def run(
        self, source: Sequence[int], target: Sequence[int]
    ) -> tuple[list[FloatArray], list[float]]:
        """The encoder's keys and values of each layer, and each token's log-probability."""


def compare_translations(
    original: Translator,
    samples: Sequence[Sample],
    graphs: Mapping[str, DecoderGraphs],
    decoding: DecodingDefaults,
    bounds: Mapping[str, float],
    max_tokens: int,
) -> OriginalParity:
    """Compare graphs by precision with the original on texts in languages of the model.

    ``decoding`` has the options of the checkpoint. ``bounds`` has the bound between batches of each
    precision. Raises ParityError if fp32 differs other than in ties, and without fp32 if the model
    is another one. Different token ids are counted.
    """
    parity = OriginalParity(
        implementation=original.implementation,
        implementation_version=original.version,
        num_texts=len(samples),
        num_different_token_ids=count_other_token_ids(
            original,
            {each.text: (each.token_ids, original.sample_ids(each)) for each in samples},
        ),
    )
    comparison = _Comparison(original, samples, decoding, max_tokens)
    for precision, opened in graphs.items():
        found = comparison.of(opened, bounds[precision])
        found.precision = precision
        if precision == "fp32":
            _check_fp32(found, comparison.largest_state, original.implementation)
        elif "fp32" not in graphs:
            comparison.check_same_model(opened)
        parity.translations.append(found)
        opened.close()
    return parity


class _Comparison:
    """Searches with the original once, then compares each precision with the results."""

    def __init__(
        self,
        original: Translator,
        samples: Sequence[Sample],
        decoding: DecodingDefaults,
        max_tokens: int,
    ) -> None:
        self._original, self._samples = original, samples
        self._sources = [sample.token_ids for sample in samples]
        self._max_tokens = min(max_tokens, MAX_COMPARED_TOKENS)
        self._rules = SearchRules(
            length_penalty=original.length_penalty,
            early_stopping=decoding.early_stopping,
            suppressed_token_ids=decoding.suppressed_token_ids,
            no_repeat_ngram_size=decoding.no_repeat_ngram_size,
            min_tokens=decoding.min_output_tokens,
            repetition_penalty=decoding.repetition_penalty or 1.0,
        )
        default = original.default_beam_size
        self._searches = SEARCHES if default == 1 else {**SEARCHES, f"beam{default}": default}
        self._expected = {size: self._translate(size) for size in self._searches.values()}
        self._targets = self._expected[1]["single"]
        runs = [original.run(*pair) for pair in zip(self._sources, self._targets, strict=True)]
        self._states, self._values = zip(*runs, strict=True)
        self.largest_state = largest(
            np.abs(state).max(initial=0) for each in self._states for state in each
        )

    def _translate(self, beam_size: int) -> dict[str, list[TokenIds]]:
        """The translations of the original by batching."""
        found = {}
        for batching, size in (("single", 1), ("batched", BATCH_SIZE)):
            found[batching] = [
                ids
                for batch in batches(self._samples, size)
                for ids in self._original.translate(batch, beam_size, self._max_tokens)
            ]
        return {**found, "ragged": found["single"]}

    def of(self, graphs: DecoderGraphs, bound: float) -> OriginalTranslations:
        """The comparison of the graphs of one precision."""
        pairs = zip(self._sources, self._states, strict=True)
        differences = [
            np.abs(ours - theirs).max(initial=0)
            for source, states in pairs
            for ours, theirs in zip(graphs.encode([source]), states, strict=True)
        ]
        return OriginalTranslations(
            max_encoder_difference=largest(differences),
            max_log_probability_difference=largest(self._differences(graphs)),
            tokens=[
                self._compare(graphs, name, batching, bound)
                for name in self._searches
                for batching in BATCHINGS
            ],
        )

    def check_same_model(self, graphs: DecoderGraphs) -> None:
        """Raise ParityError if log-probabilities differ by more than a precision explains."""
        mean = float(np.mean(self._differences(graphs)))
        if not (mean <= MAX_SAME_MODEL_DIFFERENCE):
            raise ParityError(
                f"log-probabilities differ by {mean:.2g} on average from those of "
                f"{self._original.implementation} {self._original.version}"
            )

    def _differences(self, graphs: DecoderGraphs) -> list[float]:
        scored = [
            graphs.score([s], [t])[0] for s, t in zip(self._sources, self._targets, strict=True)
        ]
        pairs = zip(scored, self._values, strict=True)
        return [abs(a - b) for each in pairs for a, b in zip(*each, strict=True)]

    def _compare(
        self, graphs: DecoderGraphs, name: str, batching: str, bound: float
    ) -> TokenParity:
        beam_size, (max_running, max_joining) = self._searches[name], BATCHINGS[batching]
        step = graphs.steps_for(beam_size)[0]
        if self._rules.repetition_penalty != 1:
            step = next(s for s in graphs.steps_for(beam_size) if graphs.takes_penalties(s))
        elif self._rules.no_repeat_ngram_size or self._rules.min_tokens:
            step = next(s for s in graphs.steps_for(beam_size) if graphs.num_step_tokens(s) == 1)
        found = search_all(
            *(graphs, self._sources, [self._max_tokens] * len(self._sources)),
            beam_size=beam_size,
            step=step,
            max_running=max_running,
            max_joining=max_joining,
            forced_token_ids=[sample.forced_ids for sample in self._samples],
            rules=self._rules,
        )
        expected = self._expected[beam_size][batching]
        different = [
            i for i, trace in enumerate(found) if trace.hypotheses[0].token_ids != expected[i]
        ]
        ties = [i for i in different if self._is_tie(i, found[i], beam_size, bound)]
        return TokenParity(
            search=name,
            batching=batching,
            cached=True,
            num_sentences=len(found),
            num_identical=len(found) - len(different),
            num_ties=len(ties),
            step=step,
        )

    def _is_tie(self, i: int, found: SearchTrace, beam_size: int, bound: float) -> bool:
        """Whether a translation differs by rounding only."""
        if found.hypotheses[0].token_ids == self._expected[beam_size]["single"][i]:
            return True  # The original gives this translation too, outside of its batch.
        sample, penalty = self._samples[i], self._original.length_penalty
        expected = self._original.trace(sample, beam_size, self._max_tokens)

        def score(
            sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
        ) -> list[list[float]]:
            num_forced = len(sample.forced_ids)
            scored = self._original.score(sources, targets, beam_size)
            return [[0.0] * num_forced + values[num_forced:] for values in scored]

        return gap(sample.token_ids, expected, found, score, penalty) < 2 * bound


def _check_fp32(found: OriginalTranslations, largest_state: float, implementation: str) -> None:
    problems = []
    encoder_bound = FP32_BOUND * max(1.0, largest_state)
    for name, moved, bound in (
        ("keys and values", found.max_encoder_difference, encoder_bound),
        ("log-probabilities", found.max_log_probability_difference, FP32_BOUND),
    ):
        if not (moved <= bound):  # also true for NaN
            problems.append(f"{name} differ by {moved:.2g}, at most {bound:.2g}")
    for entry in found.tokens:
        if num_parted := entry.num_sentences - entry.num_identical - entry.num_ties:
            problems.append(
                f"{entry.search} {entry.batching}: {num_parted} of {entry.num_sentences} sentences "
                "get other tokens"
            )
    if problems:
        raise ParityError(f"fp32 does not follow {implementation}: " + "; ".join(problems))
