"""The interfaces of models to the engine. ``runtime`` implements them over ONNX Runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.attention_calls import Attention
from attendant_server.engine.calls import TokenIds
from attendant_server.engine.encoder_calls import MaskCandidates
from attendant_server.engine.pair_calls import AttentionWeights, TargetScore

EncodedSource: TypeAlias = Any
"""An encoded source, opaque to the engine. Only the model that made it can use it."""


class RowStart(NamedTuple):
    """The state of the rows of a source before their first step."""

    token_id: int
    """The input token of the first step."""
    num_positions: int = 0
    """Cache positions that the encoded source fills."""
    begin_token_id: int | None = None
    """The token of hypotheses before their first one, for rules against repetitions; None if they
    have none."""


class TokenBias(NamedTuple):
    """Values that are added to log-probabilities before candidates are chosen.

    If a position repeats, all of its values are added.
    """

    positions: NDArray[np.int64]  # (biased, 2) row and token id
    values: NDArray[np.float32]  # (biased)


NO_TOKEN_BIAS = TokenBias(np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.float32))


class TokenPenalties(NamedTuple):
    """Repetition penalties of tokens, which change the scores that rank candidates.

    A value, the logit in greedy search and the log-probability in beam search, is multiplied by the
    penalty if it is negative, and divided otherwise. Log-probabilities stay those of the model.
    """

    positions: NDArray[np.int64]  # (penalized, 2) row and token id, each position once
    values: NDArray[np.float32]  # (penalized)


NO_PENALTIES = TokenPenalties(*NO_TOKEN_BIAS)


@dataclass(frozen=True, slots=True)
class StepInput:
    """The inputs of one decoding step. Rows of a sentence are adjacent."""

    tokens: NDArray[np.int64]  # (rows)
    lengths: NDArray[np.int32]  # (rows) tokens already in the row's cache
    num_candidates: int
    """Candidates to return for each row, at most the size of the vocabulary. A step of several
    tokens always returns the likeliest candidate of each."""
    token_biases: Sequence[TokenBias]
    """One bias for each token that the step decodes, in order."""
    penalties: TokenPenalties = NO_PENALTIES
    """The penalties for a step that takes any."""


class CacheCopy(NamedTuple):
    """A copy of cache positions ``start`` to ``stop`` (exclusive) from row ``parent`` to ``row``.

    Before ``start`` both rows already hold the same.
    """

    row: int
    parent: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """The likeliest next tokens of each row, best first.

    For a step that decodes several tokens: the likeliest token of each decoding position, in order.
    Entries with a score of minus infinity are padding, used if too few tokens are allowed.
    """

    token_ids: NDArray[np.int64]  # (rows, candidates) or (rows, num_step_tokens)
    log_probabilities: NDArray[np.float32]  # the same
    scores: NDArray[np.float32] | None = None  # the same
    """The scores that rank the candidates, from a step that takes penalties. Otherwise the
    log-probabilities rank them."""


class DecoderCache(Protocol):
    """The KV caches of all running sentences of one search width.

    A *slot* holds one sentence: its encoded source and ``width`` adjacent rows. A row is the
    self-attention cache of one hypothesis. Slot s has the rows s*width to (s+1)*width - 1.
    """

    num_step_tokens: int
    """Tokens that one step decodes for each row, without the engine in between. If there are
    several, the width is 1, each token follows the likeliest token before it, and tokens after EOS
    are undefined."""
    takes_penalties: bool
    """Whether a step takes `TokenPenalties`."""
    can_rewind: bool
    """Whether a row can go on from fewer tokens than it holds."""

    def load(self, slot: int, source: EncodedSource) -> None:
        """Put an encoded source into a slot, whose rows then begin as the model's `RowStart`."""

    def move(self, origin: int, slot: int, num_positions: int) -> None:
        """Move slot ``origin``, whose rows hold ``num_positions``, to ``slot``."""

    def copy(self, copies: Sequence[CacheCopy]) -> None:
        """Copy cache positions between rows. No row is both read and written.

        States without positions are copied whole.
        """

    def keep(self, num_slots: int, longest_row: int) -> None:
        """Declare the slots from ``num_slots`` on unused, so that others can take their memory.

        The rows that stay hold at most ``longest_row`` positions. Never fails.
        """

    def release(self) -> None:
        """Declare all slots unused, so that other widths can take the memory. Never fails."""

    def step(self, num_slots: int, step_input: StepInput) -> Candidates:
        """Append a token to each row of the first ``num_slots`` slots and rank the next tokens.

        This is repeated ``num_step_tokens`` times; each repetition appends the likeliest token of
        the repetition before. The next step may overwrite the returned arrays.
        """


class CacheFigures(NamedTuple):
    """Needed and allocated cache memory of one worker at the start of its last step, in bytes."""

    needed: int
    """Rows x longest row, plus sentences x longest source, summed over the search widths."""
    allocated: int


class CachePool(Protocol):
    """The memory of all caches of one worker."""

    figures: CacheFigures
    """Both figures at the same moment. Any thread may read them."""

    def release(self) -> None:
        """Release the memory of caches without slots in use."""


class TranslationModel(Protocol):
    """A model that decodes: an encoder-decoder, whose sources are texts to translate, or a causal
    language model, whose sources are prompts."""

    eos_id: int
    vocab_size: int
    """Number of target tokens."""

    def row_start(self, source: TokenIds) -> RowStart:
        """How the rows of a source begin."""

    def encode(self, sources: Sequence[TokenIds]) -> list[EncodedSource]:
        """Encode the sources as one padded batch."""

    def needed_cache_bytes(
        self, width: int, num_sentences: int, longest_row: int, longest_source: int
    ) -> int:
        """Bytes of cache for this many running sentences of ``width`` rows and these lengths.

        ``longest_row`` is `RowStart.num_positions` and the output tokens together.
        """

    def new_cache_pool(self, max_bytes: int, spare_bytes: int) -> CachePool:
        """The memory pool of one worker's caches, of at most ``max_bytes``.

        The limit holds as long as the running sentences do not need more. The pool allocates at
        most 1.5 times the needed memory plus ``spare_bytes``.
        """

    def step_for(self, width: int, one_token_steps: bool) -> str:
        """Name of the fastest step graph for sentences of ``width`` rows.

        With ``one_token_steps``, a graph that decodes one token per run.
        """

    def new_cache(self, step: str, width: int, max_slots: int, pool: Any) -> DecoderCache:
        """New caches for at most ``max_slots`` sentences of ``width`` rows, in memory of ``pool``.

        ``step`` is the name of the step graph that uses the caches.
        """

    def score(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[TargetScore]:
        """Score (source, target) pairs as one padded batch."""

    def align(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[AttentionWeights]:
        """Align the tokens of (source, target) pairs as one padded batch."""

    def attend(self, source: TokenIds, target: TokenIds) -> Attention:
        """The attention weights of one pair. The model must have an attention graph."""

    def release_memory(self) -> None:
        """Release the working memory of earlier runs."""

    def stop_runs(self) -> None:
        """Let the present runs raise soon; later ones are not concerned. Any thread."""


class EmbeddingModel(Protocol):
    """An encoder with pooled and per-token outputs."""

    num_layers: int
    vocab_size: int
    reads_token_types: bool
    """Whether the model distinguishes the texts of a pair by the types of their tokens."""

    def embed(
        self,
        texts: Sequence[TokenIds],
        outputs: Sequence[str],
        first_lengths: Sequence[int] | None = None,
        attended_lengths: Sequence[int] | None = None,
        num_prompt_tokens: Sequence[int | None] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Run the texts as one padded batch; ``outputs`` as in `EmbedCall`, with a batch axis.

        ``first_lengths`` are the numbers of tokens of type 0, ``attended_lengths`` of those that
        are attended to; None if all tokens are. ``num_prompt_tokens`` are the numbers of first
        tokens that poolings leave out; None for those of the default prompt.
        """

    def fill(self, hidden: NDArray[np.float32], top_k: int) -> MaskCandidates:
        """The ``top_k`` likeliest tokens for each hidden state (masks, d) of the last layer."""

    def attend(self, text: TokenIds) -> Attention:
        """The attention weights of one text. The model must have an attention graph."""

    def release_memory(self) -> None:
        """Release the working memory of earlier runs."""

    def stop_runs(self) -> None:
        """Let the present runs raise soon; later ones are not concerned. Any thread."""
