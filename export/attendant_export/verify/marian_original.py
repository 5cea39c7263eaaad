"""Translates with a plain reading of a Marian model, to compare its bundle with."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attendant_export.verify.agreement import TokenIds, trace_of
from attendant_export.verify.embedding import FloatArray
from attendant_export.verify.language_samples import Sample
from attendant_export.verify.marian_reading import MarianReading
from attendant_export.verify.original import OriginalError
from attendant_export.verify.reference_search import (
    ReferenceHypothesis,
    SearchTrace,
    best_continuations,
    search_beams,
)

WITHOUT_TOKENIZER = "NumPy"
"""Name of the comparison if ``sentencepiece`` is not installed."""
TOKENIZER = "sentencepiece"


class MarianOriginal:
    """A reading with the vocabulary and the search options of its folder.

    The tokenizer is that of ``sentencepiece``. Without this package, token ids are not compared.
    """

    def __init__(
        self,
        tensors: Mapping[str, FloatArray],
        config: Mapping[str, Any],
        vocabulary: Path,
        eos_id: int,
        suppressed_token_ids: Sequence[int] = (),
        default_beam_size: int = 1,
        length_penalty: float = 1.0,
    ) -> None:
        """``tensors`` and ``config`` are those of `MarianReading`."""
        self._reading, self._config = MarianReading(tensors, config), config
        self._eos_id, self._suppressed = eos_id, list(suppressed_token_ids)
        self._memories: dict[tuple[int, ...], FloatArray] = {}
        self._traces: dict[tuple[tuple[int, ...], int], SearchTrace] = {}
        self.default_beam_size, self.length_penalty = default_beam_size, length_penalty
        self._vocabulary = vocabulary
        self.implementation, self.version = WITHOUT_TOKENIZER, np.__version__
        if find_spec(TOKENIZER) is not None:
            self.implementation = f"{WITHOUT_TOKENIZER} and {TOKENIZER}"

    def token_ids(self, text: str) -> list[int] | None:
        """The token ids of a text with EOS; None if ``sentencepiece`` is not installed."""
        return None if self._pieces is None else [*self._pieces.encode(text), self._eos_id]

    @cached_property
    def _pieces(self) -> Any:
        if find_spec(TOKENIZER) is None:
            return None
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_file=str(self._vocabulary))

    def sample_ids(self, sample: Sample) -> list[int] | None:
        """`token_ids` of the text: a model has one language of each side."""
        return self.token_ids(sample.text)

    def translate(
        self, samples: Sequence[Sample], beam_size: int, max_tokens: int
    ) -> list[TokenIds]:
        """The best translation of each sample, one by one. Raises OriginalError."""
        traces = [self.trace(sample, beam_size, max_tokens) for sample in samples]
        return [trace.hypotheses[0].token_ids for trace in traces]

    def trace(self, sample: Sample, beam_size: int, max_tokens: int) -> SearchTrace:
        """The search for one sample with the candidates of each step. Raises OriginalError."""
        source = sample.token_ids
        key = (tuple(source), beam_size)
        if key not in self._traces:
            search = self._greedy if beam_size == 1 else self._beam
            self._traces[key] = search(self._memory(source), beam_size, max_tokens)
        return self._traces[key]

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], beam_size: int
    ) -> list[list[float]]:
        """The log-probability of every token of the targets. Raises OriginalError."""
        pairs = zip(sources, targets, strict=True)
        return [self._reading.score(self._memory(source), target) for source, target in pairs]

    def run(
        self, source: Sequence[int], target: Sequence[int]
    ) -> tuple[list[FloatArray], list[float]]:
        """Cross-attention keys and values of each layer, and `score`. Raises OriginalError."""
        memory, heads = self._memory(source), self._config["transformer-heads"]
        states = [
            array.reshape(1, len(array), heads, -1).transpose(0, 2, 1, 3)
            for array in self._reading.keys_values(memory)
        ]
        return states, self._reading.score(memory, target)

    def _memory(self, source: Sequence[int]) -> FloatArray:
        key = tuple(source)
        if key not in self._memories:
            try:
                self._memories[key] = self._reading.encode(source)
            except IndexError as error:
                raise OriginalError(f"the vocabulary of the model is smaller: {error}") from error
        return self._memories[key]

    def _next(self, memory: FloatArray, prefixes: Sequence[TokenIds]) -> torch.Tensor:
        values = self._reading.next_log_probabilities(memory, prefixes)
        values[:, self._suppressed] = -np.inf
        return torch.from_numpy(values)

    def _greedy(self, memory: FloatArray, _: int, max_tokens: int) -> SearchTrace:
        found = ReferenceHypothesis((), ())
        while len(found.token_ids) < max_tokens and found.token_ids[-1:] != (self._eos_id,):
            (found,) = best_continuations([found], self._next(memory, [found.token_ids]), 1)
        return trace_of(found)

    def _beam(self, memory: FloatArray, beam_size: int, max_tokens: int) -> SearchTrace:
        def expand(running: list[ReferenceHypothesis]) -> list[ReferenceHypothesis]:
            log_p = self._next(memory, [hypothesis.token_ids for hypothesis in running])
            return best_continuations(running, log_p, 2 * beam_size)

        return search_beams(expand, self._eos_id, beam_size, max_tokens, self.length_penalty)
