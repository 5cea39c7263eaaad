"""Compares an imported translation model with the original implementation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from attendant.v1.bundle_pb2 import (
    DecodingDefaults,
    OriginalParity,
    OriginalTranslations,
    TokenParity,
)

from attendant_export.data.batches import pad
from attendant_export.verify.bounds import FP32_BOUND, largest
from attendant_export.verify.embedding import FloatArray
from attendant_export.verify.graph_search import search_all
from attendant_export.verify.graph_sessions import ParityError, TranslationGraphs
from attendant_export.verify.language_samples import Sample, batches
from attendant_export.verify.original import (
    IMPLEMENTATION,
    Implementation,
    Original,
    OriginalError,
    count_other_token_ids,
)
from attendant_export.verify.recorded_search import BeamRecorder
from attendant_export.verify.reference_search import ReferenceHypothesis, SearchTrace
from attendant_export.verify.translation import SEARCHES, TokenIds, gap, trace_of

MAX_COMPARED_TOKENS = 100
BATCH_SIZE = 16
BATCHINGS = {"single": (1, 1), "batched": (BATCH_SIZE, BATCH_SIZE), "ragged": (8, 1)}
"""Limits of running sentences and of sentences that join at once."""
MAX_SAME_MODEL_DIFFERENCE = 1.0
"""Largest mean difference of log-probabilities in a bundle without fp32, to notice another
model."""


class Translator(Implementation, Protocol):
    """Another implementation of a translation model, with the options of its checkpoint."""

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
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """The log-probability of every token of the targets."""

    def run(
        self, source: Sequence[int], target: Sequence[int]
    ) -> tuple[list[FloatArray], list[float]]:
        """Cross-attention keys and values of each layer, and `score`."""


class OriginalTranslator(Original):
    """A translation model in the original implementation, with the options of its checkpoint."""

    def __init__(self, folder: Path) -> None:
        """Raises OriginalError."""
        super().__init__(folder, "AutoModelForSeq2SeqLM")
        if self._missing:
            raise OriginalError(
                f"{IMPLEMENTATION} {self.version} finds no weights for {self._missing[0]} in "
                f"{folder}"
            )
        options = self._model.generation_config
        # The server reports such a translation as truncated instead.
        options.forced_eos_token_id = None
        options.max_length = None
        self.default_beam_size: int = options.num_beams or 1
        self.length_penalty: float = (
            1.0 if options.length_penalty is None else options.length_penalty
        )
        for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
            if getattr(options, name) is None:  # The network's configuration may state it instead.
                setattr(options, name, getattr(self._model.config, name))
        self._start_id, self._eos_id = options.decoder_start_token_id, options.eos_token_id
        self._pad_id = options.pad_token_id
        self._left_out: list[int] = []
        if options.renormalize_logits:
            words = [token for word in options.bad_words_ids or () for token in word]
            self._left_out = [*words, *(options.suppress_tokens or ())]

    def sample_ids(self, sample: Sample) -> list[int]:
        """The token ids of a text in its language, special tokens included.

        Raises OriginalError if the tokenizer of the original lacks the language.
        """
        if sample.language_id is not None:
            token = self._tokenizer.convert_ids_to_tokens(sample.language_id)
            if token is None:
                raise OriginalError(
                    f"the tokenizer of {IMPLEMENTATION} {self.version} has no token with the id "
                    f"{sample.language_id}, which selects a language"
                )
            self._tokenizer.src_lang = token.strip("_")
        if sample.code_id is not None:
            texts = {token_id: text for text, token_id in self._tokenizer.get_vocab().items()}
            return self.token_ids(f"{texts[sample.code_id]} {sample.text}")
        return self.token_ids(sample.text)

    def translate(
        self,
        samples: Sequence[Sample],
        beam_size: int,
        max_tokens: int,
        processors: Sequence[Any] = (),
    ) -> list[TokenIds]:
        """The best translation of each sample, in one batch. Raises OriginalError.

        The samples have the same forced tokens, at most one.
        """
        token_ids = pad([sample.token_ids for sample in samples], self._pad_id)
        lengths = torch.tensor([len(sample.token_ids) for sample in samples])
        forced = samples[0].forced_ids
        with self.running(token_ids.shape[1]):
            found = self._model.generate(
                input_ids=token_ids,
                attention_mask=(torch.arange(token_ids.shape[1]) < lengths[:, None]).long(),
                num_beams=beam_size,
                max_new_tokens=max_tokens,
                forced_bos_token_id=forced[0] if forced else None,
                logits_processor=list(processors),
            )
        return [self._until_end(ids[1:]) for ids in found.tolist()]

    def trace(self, sample: Sample, beam_size: int, max_tokens: int) -> SearchTrace:
        """The search for one sample with the candidates of each step. Raises OriginalError."""
        recorder = BeamRecorder(beam_size, self._eos_id, normalizes=bool(self._left_out))
        (ids,) = self.translate([sample], beam_size, max_tokens, [recorder])
        best = ReferenceHypothesis(ids, ())
        return trace_of(best) if beam_size == 1 else SearchTrace([best], recorder.steps)

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """The log-probability of every token of the targets. Raises OriginalError."""
        return [self.run(*pair)[1] for pair in zip(sources, targets, strict=True)]

    def run(
        self, source: Sequence[int], target: Sequence[int]
    ) -> tuple[list[FloatArray], list[float]]:
        """Cross-attention keys and values of each layer, and `score`. Raises OriginalError."""
        with self.running(len(source)):
            output = self._model(
                input_ids=torch.tensor([list(source)]),
                decoder_input_ids=torch.tensor([[self._start_id, *target[:-1]]]),
                use_cache=True,
            )
            logits = output.logits[0]
            logits[:, self._left_out] = -torch.inf
            chosen = logits.log_softmax(-1).gather(1, torch.tensor([list(target)]).T)[:, 0]
        # The name of the field depends on the version.
        cache = output["cache"] if "cache" in output else output["past_key_values"]
        layers = cache.cross_attention_cache.layers
        states = [state.numpy() for layer in layers for state in (layer.keys, layer.values)]
        return states, chosen.tolist()

    def _until_end(self, ids: list[int]) -> TokenIds:
        return tuple(ids[: ids.index(self._eos_id) + 1] if self._eos_id in ids else ids)


def compare_translations(
    original: Translator,
    samples: Sequence[Sample],
    graphs: Mapping[str, TranslationGraphs],
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
        self._decoding, self._max_tokens = decoding, min(max_tokens, MAX_COMPARED_TOKENS)
        default = original.default_beam_size
        self._searches = SEARCHES if default == 1 else {**SEARCHES, f"beam{default}": default}
        self._expected = {size: self._translate(size) for size in self._searches.values()}
        self._targets = self._expected[1]["single"]
        runs = [original.run(*pair) for pair in zip(self._sources, self._targets, strict=True)]
        self._states, self._values = zip(*runs, strict=True)
        self.largest_state = largest(np.abs(state).max() for each in self._states for state in each)

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

    def of(self, graphs: TranslationGraphs, bound: float) -> OriginalTranslations:
        """The comparison of the graphs of one precision."""
        pairs = zip(self._sources, self._states, strict=True)
        differences = [
            np.abs(ours - theirs).max()
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

    def check_same_model(self, graphs: TranslationGraphs) -> None:
        """Raise ParityError if log-probabilities differ by more than a precision explains."""
        mean = float(np.mean(self._differences(graphs)))
        if not (mean <= MAX_SAME_MODEL_DIFFERENCE):
            raise ParityError(
                f"log-probabilities differ by {mean:.2g} on average from those of "
                f"{self._original.implementation} {self._original.version}"
            )

    def _differences(self, graphs: TranslationGraphs) -> list[float]:
        scored = [
            graphs.score([s], [t])[0] for s, t in zip(self._sources, self._targets, strict=True)
        ]
        pairs = zip(scored, self._values, strict=True)
        return [abs(a - b) for each in pairs for a, b in zip(*each, strict=True)]

    def _compare(
        self, graphs: TranslationGraphs, name: str, batching: str, bound: float
    ) -> TokenParity:
        beam_size, (max_running, max_joining) = self._searches[name], BATCHINGS[batching]
        step, decoding = graphs.steps_for(beam_size)[0], self._decoding
        if decoding.no_repeat_ngram_size or decoding.min_output_tokens:
            step = next(s for s in graphs.steps_for(beam_size) if graphs.num_step_tokens(s) == 1)
        found = search_all(
            *(graphs, self._sources, [self._max_tokens] * len(self._sources)),
            beam_size=beam_size,
            step=step,
            max_running=max_running,
            max_joining=max_joining,
            length_penalty=self._original.length_penalty,
            suppressed_token_ids=decoding.suppressed_token_ids,
            forced_token_ids=[sample.forced_ids for sample in self._samples],
            early_stopping=decoding.early_stopping,
            no_repeat_ngram_size=decoding.no_repeat_ngram_size,
            min_tokens=decoding.min_output_tokens,
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
            scored = self._original.score(sources, targets)
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
