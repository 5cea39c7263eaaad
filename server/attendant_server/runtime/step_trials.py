"""The trial of step graphs when a model is loaded: they must agree with the scorer.

A signature may name inputs or states of equal types and shapes in each other's roles. Such a step
runs, but its results are wrong. Knows graphs and arrays, and no requests.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from attendant.v1 import bundle_pb2
from numpy.typing import NDArray

from attendant_server.engine.calls import TokenIds
from attendant_server.engine.models import NO_TOKEN_BIAS, RowStart, StepInput, TokenBias
from attendant_server.engine.pair_calls import TargetScore
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.cache_sizes import CacheSizes
from attendant_server.runtime.host_cache import EncodedSentence, HostDecoderCache
from attendant_server.runtime.model_graphs import ThreadedStep, trial_run

SOURCE_LENGTHS = (3, 7)
"""Tokens of the two sources, if the model's limit allows."""
NUM_TOKENS = 6
"""Least number of tokens that a trial decodes for each source, if the model's limit allows."""
NUM_RUNS = 3
"""Least number of runs of a trial. States that change places show from the second run on."""
WIDTH = 2
"""Rows of each source, if the step takes any number."""
LEAST_TOLERANCES = {"fp32": 0.01, "fp16": 0.1, "int8": 0.1}
"""Least tolerance by precision: more than rounding, and less than the effect of a wrong role."""
FIRST_TOKEN_FIELDS = (
    "inputs.tokens, inputs.source_lengths, inputs.total_length, inputs.total_source_length, "
    "inputs.token_biases, and input, outputs and encoder_output of the states of sources"
)
"""Fields of a signature that the first token depends on."""
ALL_FIELDS = "inputs, and input, outputs and encoder_output of states"


@dataclass(frozen=True, slots=True)
class StepTrial:
    """Two sources of different lengths, whose translations begin in one batch."""

    sources: Sequence[TokenIds]
    encoded: Sequence[EncodedSentence]
    starts: Sequence[RowStart]
    score: Callable[[Sequence[tuple[TokenIds, TokenIds]]], Sequence[TargetScore]]
    """`OnnxDecoderModel.score`."""
    cache_sizes: CacheSizes
    vocab_size: int
    eos_id: int
    max_row: int
    """Positions of a row that is as long as the limits allow."""
    row_limit: str
    """The field of the manifest that limits rows."""
    tolerance: float
    """Allowed difference of log-probabilities, times the value where that is more than 1."""

    def check(self, step: ThreadedStep) -> None:
        """Raise ValueError unless the scorer gives the decoded tokens the same log-probabilities.

        The search prefers likely tokens other than EOS. Each row of a source takes another token.
        """
        name = f"step {step.signature.step.name}"
        with trial_run(name, ALL_FIELDS):
            differences = self._differences(step)
        differs = ~(differences <= self.tolerance)  # also NaN
        if differs.any():
            token = int(differs.argmax())
            raise ValueError(
                f"{name}: the log-probability of token {token + 1} in a "
                f"trial differs from the scorer's by {differences[token]:.2g}, at most "
                f"{self.tolerance}; check {ALL_FIELDS if token else FIRST_TOKEN_FIELDS}"
            )
        with trial_run(name, self.row_limit):
            self._run_last_step(step)

    def _differences(self, step: ThreadedStep) -> NDArray[np.float32]:
        """Differences between step and scorer: the largest of all rows for each token."""
        token_ids, found = self._decode(step)
        width = len(token_ids) // len(self.sources)
        pairs = [(self.sources[i // width], row) for i, row in enumerate(token_ids)]
        expected = np.stack([score.log_probabilities for score in self.score(pairs)])
        with np.errstate(invalid="ignore"):
            relative = np.abs(found - expected) / np.maximum(1, np.abs(expected))
        return relative.max(axis=0)  # type: ignore[no-any-return]

    def _decode(self, step: ThreadedStep) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Tokens and their log-probabilities, both (rows, tokens)."""
        signature = step.signature
        width = 1 if signature.step.rows_per_sentence else WIDTH
        cache = self._loaded_cache(step, width)
        rows = np.arange(width * len(self.sources))
        wanted = max(NUM_TOKENS, NUM_RUNS * signature.num_tokens)
        first_tokens, first_lengths = self._starts(width)
        num_tokens = max(1, min(wanted, self.max_row - int(first_lengths.max())))
        added = [1.0 + i for i in range(signature.num_tokens)]  # finds swapped token_biases
        biases = [self._token_bias(len(rows), value) for value in added]
        tokens, token_ids, log_probabilities = first_tokens, [], []
        for num_past in range(0, num_tokens, signature.num_tokens):
            step_input = StepInput(tokens, first_lengths + num_past, width, biases)
            found = cache.step_with(step.shared, len(self.sources), step_input)
            ranked = found.log_probabilities if found.scores is None else found.scores
            for i, value in enumerate(added):
                columns = rows % width if signature.takes_num_candidates else i
                token_ids.append(found.token_ids[rows, columns])
                log_probabilities.append(ranked[rows, columns] - value)
            tokens = token_ids[-1]
        kept = slice(num_tokens)
        return np.stack(token_ids[kept], axis=1), np.stack(log_probabilities[kept], axis=1)

    def _run_last_step(self, step: ThreadedStep) -> None:
        """Run a step at the last positions of the longest rows."""
        cache, num_rows = self._loaded_cache(step, width=1), len(self.sources)
        num_tokens, (tokens, lengths) = step.signature.num_tokens, self._starts(width=1)
        num_runs_before = np.maximum(self.max_row - 1 - lengths, 0) // num_tokens
        step_input = StepInput(
            tokens=tokens,
            lengths=(lengths + num_runs_before * num_tokens).astype(np.int32),
            num_candidates=1,
            token_biases=[NO_TOKEN_BIAS] * num_tokens,
        )
        cache.step_with(step.shared, num_rows, step_input)

    def _starts(self, width: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """First input tokens and first lengths of ``width`` rows of each source."""
        starts = np.repeat(np.array([start[:2] for start in self.starts]), width, axis=0)
        return starts[:, 0].astype(np.int64), starts[:, 1].astype(np.int32)

    def _loaded_cache(self, step: ThreadedStep, width: int) -> HostDecoderCache:
        num_slots = len(self.sources)
        pool = CachePool(self.cache_sizes)
        cache = HostDecoderCache(step, width, num_slots, self.vocab_size, pool)
        for slot, source in enumerate(self.encoded):
            if step.signature.takes_shortlist:
                # The scorer's log-probabilities are those among all tokens.
                source = replace(source, shortlist=np.arange(self.vocab_size))
            cache.load(slot, source)
        return cache

    def _token_bias(self, num_rows: int, value: float) -> TokenBias:
        """Prevents EOS, after which tokens are undefined; adds ``value`` to all other tokens."""
        biases = np.full((num_rows, self.vocab_size), value, dtype=np.float32)
        biases[:, self.eos_id] = -np.inf
        positions = np.indices(biases.shape, dtype=np.int64).reshape(2, -1)
        return TokenBias(np.ascontiguousarray(positions.T), biases.reshape(-1))


def trial_sources(vocab_size: int, max_tokens: int) -> list[list[int]]:
    """Two sources of different lengths, with tokens from all parts of the vocabulary."""
    lengths = [min(length, max_tokens) for length in SOURCE_LENGTHS]
    return [[vocab_size * (i + 1) // (n + 1) for i in range(n)] for n in lengths]


def tolerance(manifest: bundle_pb2.Manifest, precision: str) -> float:
    """Twice the bound of the manifest's report for equal graphs, but not less than usual rounding.

    The sources of a trial are less likely than the sentences of the report.
    """
    bounds = [
        p.log_probability_bound for p in manifest.parity.precisions if p.precision == precision
    ]
    return max([LEAST_TOLERANCES[precision], *(2 * bound for bound in bounds)])
