"""Compares a model imported from a CTranslate2 folder with ``ctranslate2``, if it is installed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from attendant.v1.bundle_pb2 import OriginalParity, OriginalTranslations, TokenParity

from attendant_export.verify.agreement import TokenIds
from attendant_export.verify.bounds import FP32_BOUND, largest
from attendant_export.verify.decoder import SEARCHES
from attendant_export.verify.graph_search import search_all
from attendant_export.verify.graph_sessions import ParityError, TranslationGraphs
from attendant_export.verify.original import OriginalError
from attendant_export.verify.original_translation import (
    BATCH_SIZE,
    BATCHINGS,
    MAX_COMPARED_TOKENS,
    MAX_SAME_MODEL_DIFFERENCE,
)
from attendant_export.verify.reference_search import SearchTrace

IMPLEMENTATION = "ctranslate2"


@dataclass(frozen=True, slots=True)
class FolderTokens:
    """The tokens of a folder by id, and how ids of a source become tokens for CTranslate2."""

    source: Sequence[str]
    target: Sequence[str]
    eos: str
    adds_bos: bool
    """Whether CTranslate2 begins each source with BOS by itself."""
    adds_eos: bool
    """Whether CTranslate2 ends each source with EOS by itself."""


def is_installed() -> bool:
    """Whether CTranslate2 is installed."""
    return find_spec(IMPLEMENTATION) is not None


class CTranslate2Translator:
    """The model of a folder in CTranslate2, computed in fp32."""

    def __init__(self, folder: Path, tokens: FolderTokens) -> None:
        """Raises OriginalError."""
        if not is_installed():
            raise OriginalError(
                f"a comparison with the original needs {IMPLEMENTATION}: install it with pip"
            )
        import ctranslate2

        self.version: str = ctranslate2.__version__
        try:
            self._model: Any = ctranslate2.Translator(
                str(folder), device="cpu", compute_type="float32"
            )
        except (RuntimeError, ValueError) as error:
            raise OriginalError(
                f"{IMPLEMENTATION} {self.version} cannot load {folder}: {error}"
            ) from error
        self._tokens = tokens
        self._target_ids = {token: token_id for token_id, token in enumerate(tokens.target)}
        self.eos_id = self._target_ids[tokens.eos]

    def translate(
        self,
        sources: Sequence[Sequence[int]],
        beam_size: int,
        max_tokens: int,
        batch_size: int = 1,
        patience: float = 1,
    ) -> list[TokenIds]:
        """The best translation of each source, which may be empty.

        A beam search ends when ``patience * beam_size`` hypotheses have ended.
        """
        found = self._model.translate_batch(
            list(map(self._source, sources)),
            beam_size=beam_size,
            patience=patience,
            max_batch_size=batch_size,
            max_input_length=0,
            max_decoding_length=max_tokens,
            min_decoding_length=0,
            return_end_token=True,
        )
        return [tuple(self._target_ids[t] for t in result.hypotheses[0]) for result in found]

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """The log-probability of every token of the targets."""
        found = self._model.score_batch(
            list(map(self._source, sources)),
            list(map(self._target, targets)),
            max_batch_size=BATCH_SIZE,
            max_input_length=0,
        )
        # CTranslate2 also scores an EOS that the target does not have.
        return [result.log_probs[: len(ids)] for result, ids in zip(found, targets, strict=True)]

    def _source(self, token_ids: Sequence[int]) -> list[str]:
        options = self._tokens
        tokens = [options.source[token_id] for token_id in token_ids]
        return tokens[options.adds_bos : len(tokens) - options.adds_eos]

    def _target(self, token_ids: Sequence[int]) -> list[str]:
        tokens = [self._tokens.target[token_id] for token_id in token_ids]
        return tokens[:-1] if tokens[-1] == self._tokens.eos else tokens


def compare_with_ctranslate2(
    original: CTranslate2Translator,
    sources: Sequence[Sequence[int]],
    graphs: Mapping[str, TranslationGraphs],
    bounds: Mapping[str, float],
    max_tokens: int,
) -> OriginalParity:
    """Compare graphs by precision with CTranslate2 on the token ids of sources.

    ``bounds`` has the bound between batches of each precision. Raises ParityError if fp32 differs
    other than in ties or by a longer search, and without fp32 if the model is another one.
    """
    parity = OriginalParity(
        implementation=IMPLEMENTATION,
        implementation_version=original.version,
        num_texts=len(sources),
    )
    comparison = _Comparison(original, sources, min(max_tokens, MAX_COMPARED_TOKENS))
    for precision, opened in graphs.items():
        found = comparison.of(opened, bounds[precision])
        found.precision = precision
        if precision == "fp32":
            _check_fp32(found)
        elif "fp32" not in graphs:
            comparison.check_same_model(opened)
        parity.translations.append(found)
        opened.close()
    return parity


class _Comparison:
    """Searches with CTranslate2 once, then compares each precision with the results."""

    def __init__(
        self, original: CTranslate2Translator, sources: Sequence[Sequence[int]], max_tokens: int
    ) -> None:
        self._original, self._sources, self._max_tokens = original, list(sources), max_tokens
        self._expected = {
            (name, batching): original.translate(sources, beam_size, max_tokens, max_running)
            for name, beam_size in SEARCHES.items()
            for batching, (max_running, _) in BATCHINGS.items()
        }
        self._targets = self._expected["greedy", "single"]
        self._values = original.score(sources, self._targets)

    def of(self, graphs: TranslationGraphs, bound: float) -> OriginalTranslations:
        """The comparison of the graphs of one precision."""
        return OriginalTranslations(
            max_log_probability_difference=largest(self._differences(graphs)),
            tokens=[
                self._compare(graphs, name, batching, bound)
                for name in SEARCHES
                for batching in BATCHINGS
            ],
        )

    def check_same_model(self, graphs: TranslationGraphs) -> None:
        """Raise ParityError if log-probabilities differ by more than a precision explains."""
        mean = float(np.mean(self._differences(graphs)))
        if not (mean <= MAX_SAME_MODEL_DIFFERENCE):
            raise ParityError(
                f"log-probabilities differ by {mean:.2g} on average from those of "
                f"{IMPLEMENTATION} {self._original.version}"
            )

    def _differences(self, graphs: TranslationGraphs) -> list[float]:
        pairs = zip(graphs.score(self._sources, self._targets), self._values, strict=True)
        return [abs(a - b) for each in pairs for a, b in zip(*each, strict=True)]

    def _compare(
        self, graphs: TranslationGraphs, name: str, batching: str, bound: float
    ) -> TokenParity:
        beam_size, (max_running, max_joining) = SEARCHES[name], BATCHINGS[batching]
        step = graphs.steps_for(beam_size)[0]
        found = search_all(
            *(graphs, self._sources, [self._max_tokens] * len(self._sources)),
            beam_size=beam_size,
            step=step,
            max_running=max_running,
            max_joining=max_joining,
        )
        pairs = zip(self._sources, found, self._expected[name, batching], strict=True)
        different = [
            (source, trace, theirs)
            for source, trace, theirs in pairs
            if trace.hypotheses[0].token_ids != theirs
        ]
        kinds = Counter(self._kind(*each, beam_size, bound) for each in different)
        return TokenParity(
            search=name,
            batching=batching,
            cached=True,
            num_sentences=len(found),
            num_identical=len(found) - len(different),
            num_ties=kinds["tie"],
            num_longer_searches=kinds["longer"],
            step=step,
        )

    def _kind(
        self,
        source: Sequence[int],
        found: SearchTrace,
        theirs: TokenIds,
        beam_size: int,
        bound: float,
    ) -> str:
        """Why a translation differs: "tie", "longer" search or "unknown".

        CTranslate2 ends a beam search after a number of ended hypotheses. The search of the graphs
        goes on while a running hypothesis has a better score.
        """
        ours = found.hypotheses[0].token_ids
        if beam_size > 1:
            patience = self._num_ended(found) / beam_size
            (longer,) = self._original.translate(
                [source], beam_size, self._max_tokens, patience=max(1, patience)
            )
            if ours == longer:
                return "longer"
            theirs = longer
        gap = self._gap(source, ours, theirs, is_greedy=beam_size == 1)
        return "tie" if gap < 2 * bound else "unknown"

    def _num_ended(self, found: SearchTrace) -> int:
        """Number of hypotheses that ended in a search."""
        if len(found.steps) == self._max_tokens:
            return len(found.steps) * max(len(step.best) for step in found.steps)
        ids = [hypothesis.token_ids for step in found.steps for hypothesis in step.best]
        return sum(each[-1] == self._original.eos_id for each in ids)

    def _gap(
        self, source: Sequence[int], ours: TokenIds, theirs: TokenIds, is_greedy: bool
    ) -> float:
        """Difference of the scores of two translations in CTranslate2.

        In greedy search, only the first token that differs counts.
        """
        if is_greedy:
            pairs = enumerate(zip(ours, theirs, strict=False))
            end = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)) - 1) + 1
            ours, theirs = ours[:end], theirs[:end]
        scored = self._original.score([source] * 2, [ours, theirs])
        first, second = (sum(values) / len(values) for values in scored)
        return abs(first - second) * (len(ours) if is_greedy else 1)


def _check_fp32(found: OriginalTranslations) -> None:
    problems = []
    if not (found.max_log_probability_difference <= FP32_BOUND):  # also true for NaN
        problems.append(
            f"log-probabilities differ by {found.max_log_probability_difference:.2g}, at most "
            f"{FP32_BOUND:.2g}"
        )
    for entry in found.tokens:
        explained = entry.num_identical + entry.num_ties + entry.num_longer_searches
        if num_parted := entry.num_sentences - explained:
            problems.append(
                f"{entry.search} {entry.batching}: {num_parted} of {entry.num_sentences} sentences "
                "get other tokens"
            )
    if problems:
        raise ParityError(f"fp32 does not follow {IMPLEMENTATION}: " + "; ".join(problems))
