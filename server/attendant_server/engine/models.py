"""What the engine asks of a model. Implemented over ONNX Runtime in the ``onnx`` modules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.calls import MaskCandidates, TargetScore, TokenIds

EncodedSource: TypeAlias = Any
"""An encoded source, as only the model that made it can use it."""


class TokenBias(NamedTuple):
    """What is added to log-probabilities before candidates are chosen.

    Positions may repeat: all of their values are added.
    """

    positions: NDArray[np.int64]  # (biased, 2) row and token id
    values: NDArray[np.float32]  # (biased)


NO_TOKEN_BIAS = TokenBias(np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class StepInput:
    """What one decoding step is given. Rows of a sentence are adjacent."""

    tokens: NDArray[np.int64]  # (rows)
    lengths: NDArray[np.int32]  # (rows) tokens already in the row's cache
    num_candidates: int
    """Candidates of each row; of steps of several tokens, always the best one of each."""
    token_biases: Sequence[TokenBias]
    """For each of the tokens that the step decodes in turn."""


class CacheCopy(NamedTuple):
    """Positions ``start`` to ``stop`` of the past of ``parent`` that ``row`` must hold as well.

    Before ``start`` both rows hold the same already.
    """

    row: int
    parent: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """The likeliest next tokens of each row, best first.

    Of a step that decodes several tokens, the likeliest of each in turn. What has a log-probability
    of minus infinity is no candidate: it fills the place of one where too few tokens are allowed.
    """

    token_ids: NDArray[np.int64]  # (rows, candidates) or (rows, num_step_tokens)
    log_probabilities: NDArray[np.float32]  # the same


class DecoderCache(Protocol):
    """The caches of all sentences that are searched with one width.

    A *slot* holds one sentence: its encoded source and ``width`` adjacent rows, each the
    self-attention cache of one hypothesis. Slot s has the rows s*width to (s+1)*width - 1.
    """

    num_step_tokens: int
    """Tokens that a step decodes for each row, with nothing between them that the engine could do.
    Where there are several the width is 1, each follows from the likeliest before it, and the last
    ones may lie behind an end."""

    def load(self, slot: int, source: EncodedSource) -> None:
        """Put an encoded source into a slot; its rows are empty."""

    def move(self, origin: int, slot: int, num_positions: int) -> None:
        """Move the slot ``origin``, whose rows hold ``num_positions`` tokens, to ``slot``."""

    def copy(self, copies: Sequence[CacheCopy]) -> None:
        """Copy pasts between rows; none that is read is written as well."""

    def release(self) -> None:
        """No slot is in use any more: other widths may need the memory."""

    def step(self, num_slots: int, step_input: StepInput) -> Candidates:
        """Append a token to each row of the first ``num_slots`` slots and rank the next.

        Repeated ``num_step_tokens`` times; each repetition appends the likeliest token of the one
        before. The answer may be overwritten by the next step.
        """


class CacheFigures(NamedTuple):
    """What the caches of one worker needed and took when its last step began, in bytes."""

    needed: int
    """Rows x longest row, and sentences x longest source, over the running sentences."""
    allocated: int


class CachePool(Protocol):
    """The memory of all caches of one worker."""

    figures: CacheFigures
    """Both of the same moment, for any thread."""

    def release(self) -> None:
        """Give back the memory of caches of which no slot is in use."""


class TranslationModel(Protocol):
    """An encoder-decoder model."""

    start_token_id: int
    eos_id: int

    def encode(self, sources: Sequence[TokenIds]) -> list[EncodedSource]:
        """Encode the sources as one padded batch."""

    def needed_cache_bytes(
        self, width: int, num_sentences: int, longest_output: int, longest_source: int
    ) -> int:
        """What so many running sentences of ``width`` rows need when they are as long as this."""

    def new_cache_pool(self, max_bytes: int, spare_bytes: int) -> CachePool:
        """Memory of at most ``max_bytes``, if what runs together never needs more.

        It takes at most 1.5 times what is needed, and ``spare_bytes``.
        """

    def step_for(self, width: int, one_token_steps: bool) -> str:
        """Name of the quickest step graph for sentences of ``width`` rows.

        With ``one_token_steps`` the graph decodes one token in a run.
        """

    def new_cache(self, step: str, width: int, max_slots: int, pool: Any) -> DecoderCache:
        """The caches for at most ``max_slots`` sentences of ``width`` rows, in one of its pools.

        ``step`` is the name of the graph that steps over them.
        """

    def score(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[TargetScore]:
        """Score (source, target) pairs as one padded batch."""

    def release_memory(self) -> None:
        """Give back what earlier runs took for their work."""


class EmbeddingModel(Protocol):
    """An encoder with pooled and per-token outputs."""

    num_layers: int

    def embed(
        self, texts: Sequence[TokenIds], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Run the texts as one padded batch; ``outputs`` as in `EmbedCall`, with a batch axis."""

    def fill(self, hidden: NDArray[np.float32], top_k: int) -> MaskCandidates:
        """The ``top_k`` likeliest tokens for each hidden state (masks, d) of the last layer."""

    def release_memory(self) -> None:
        """Give back what earlier runs took for their work."""
