"""A deterministic fake translation model for tests of the engine.

Its next token depends on the source and on every token of the prefix. A row whose cache was moved,
reordered or mixed up by mistake therefore gives different tokens.
"""

import random
from collections.abc import Sequence
from functools import cache

import numpy as np
from attendant_server.engine.attention_calls import Attention, LayerWeights
from attendant_server.engine.encoder_calls import MaskCandidates
from attendant_server.engine.models import (
    CacheCopy,
    CacheFigures,
    Candidates,
    RowStart,
    StepInput,
)
from attendant_server.engine.pair_calls import AttentionWeights, TargetScore
from attendant_server.engine.reports import BatchReport, StepReport

BOS, EOS, VOCAB = 1, 2, 24


@cache
def log_probabilities(source: tuple[int, ...], prefix: tuple[int, ...]) -> tuple[float, ...]:
    """Log-probabilities of all tokens after ``prefix``; EOS gets likelier in longer prefixes."""
    rng = random.Random(f"{source}{prefix}")
    weights = [rng.random() ** 4 for _ in range(VOCAB)]
    weights[0] = weights[BOS] = 1e-9
    weights[EOS] *= 0.1 + 0.3 * len(prefix)
    total = sum(weights)
    return tuple(float(np.float32(np.log(w / total))) for w in weights)


class FakeCache:
    """A cache whose rows are lists of tokens instead of keys and values."""

    def __init__(
        self,
        model: "FakeTranslationModel",
        width: int,
        max_slots: int,
        step: str,
    ) -> None:
        self.model, self.width = model, width
        self.takes_penalties = False
        self.can_rewind = True
        self.num_step_tokens = model.num_greedy_tokens if step == "greedy" else 1
        self.is_released = True
        self.sources: list[tuple[int, ...]] = [()] * max_slots
        self.rows: list[list[int]] = [[] for _ in range(max_slots * width)]

    def load(self, slot: int, source: tuple[int, ...]) -> None:
        self.is_released = False
        self.sources[slot] = source
        for row in range(slot * self.width, (slot + 1) * self.width):
            self.rows[row] = list(self.model.first_tokens(source))

    def keep(self, num_slots: int, longest_row: int) -> None:
        assert num_slots

    def release(self) -> None:
        self.is_released = True
        self.rows = [[] for _ in self.rows]

    def move(self, origin: int, slot: int, num_positions: int) -> None:
        self.sources[slot] = self.sources[origin]
        for i in range(self.width):
            row = self.rows[origin * self.width + i]
            self.rows[slot * self.width + i] = row[:num_positions]

    def copy(self, copies: Sequence[CacheCopy]) -> None:
        assert not {c.row for c in copies} & {c.parent for c in copies}
        for row, parent, start, stop in copies:
            assert len(self.rows[parent]) == stop
            self.rows[row] = [*self.rows[row][:start], *self.rows[parent][start:stop]]

    def step(self, num_slots: int, step_input: StepInput) -> Candidates:
        self.model.before_step()
        self.model.steps.append((self.width, num_slots))
        num_rows = num_slots * self.width
        assert step_input.tokens.shape == step_input.lengths.shape == (num_rows,)
        tokens, found = step_input.tokens, []
        num_candidates = step_input.num_candidates if self.num_step_tokens == 1 else 1
        for i, token_bias in enumerate(step_input.token_biases):
            scores = self._scores(tokens, step_input.lengths + i)
            for (row, token), value in zip(*token_bias, strict=True):
                scores[row, token] += value
            best = np.argsort(-scores, axis=1, kind="stable")[:, :num_candidates]
            found.append((best, np.take_along_axis(scores, best, axis=1)))
            tokens = best[:, 0]
        assert len(found) == self.num_step_tokens
        return Candidates(*(np.concatenate(each, axis=1) for each in zip(*found, strict=True)))

    def _scores(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Log-probabilities after each row, whose new token is appended to the tokens it keeps."""
        scores = np.empty((len(tokens), VOCAB), dtype=np.float32)
        for row, (token, length) in enumerate(zip(tokens.tolist(), lengths.tolist(), strict=True)):
            self.rows[row] = [*self.rows[row][:length], token]
            assert len(self.rows[row]) == length + 1, "the cache lacks tokens"
            source = self.sources[row // self.width]
            scores[row] = self.model.after_row(source, tuple(self.rows[row]))
        return scores


class FakeCachePool:
    """Counts the requests to release its memory."""

    figures = CacheFigures(0, 0)
    num_releases = 0

    def release(self) -> None:
        self.num_releases += 1


class FakeTranslationModel:
    """Records the runs that it was asked for."""

    eos_id, vocab_size = EOS, VOCAB

    def __init__(self, num_greedy_tokens: int = 1) -> None:
        self.num_greedy_tokens = num_greedy_tokens
        """Number of tokens that a greedy step decodes."""
        self.num_releases = 0
        self.encoded: list[list[tuple[int, ...]]] = []
        self.steps: list[tuple[int, int]] = []
        """(width, slots) of every step."""

    def release_memory(self) -> None:
        self.num_releases += 1

    def stop_runs(self) -> None:
        """A hook for subclasses that hang."""

    def before_step(self) -> None:
        """A hook for subclasses that fail or wait."""

    def row_start(self, source: Sequence[int]) -> RowStart:
        return RowStart(BOS, begin_token_id=BOS)

    def first_tokens(self, source: tuple[int, ...]) -> tuple[int, ...]:
        """The tokens with which the rows of a source begin."""
        return ()

    def after_row(self, source: tuple[int, ...], row: tuple[int, ...]) -> Sequence[float]:
        """Log-probabilities of all tokens after a row of a source."""
        return self.log_probabilities(source, row[1:])

    def encode(self, sources: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        self.encoded.append([tuple(s) for s in sources])
        return self.encoded[-1]

    def needed_cache_bytes(
        self, width: int, num_sentences: int, longest_row: int, longest_source: int
    ) -> int:
        return num_sentences * (width * longest_row + longest_source)

    def new_cache_pool(self, max_bytes: int, spare_bytes: int) -> "FakeCachePool":
        return FakeCachePool()

    def step_for(self, width: int, one_token_steps: bool) -> str:
        is_greedy = width == 1 and (self.num_greedy_tokens == 1 or not one_token_steps)
        return "greedy" if is_greedy else "general"

    def new_cache(
        self, step: str, width: int, max_slots: int, pool: "FakeCachePool | None" = None
    ) -> FakeCache:
        return FakeCache(self, width, max_slots, step)

    def log_probabilities(
        self, source: tuple[int, ...], prefix: tuple[int, ...]
    ) -> Sequence[float]:
        """Log-probabilities of all tokens after ``prefix``."""
        return log_probabilities(source, prefix)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[TargetScore]:
        return [
            TargetScore(
                np.array(
                    [
                        log_probabilities(tuple(source), tuple(target[:i]))[token]
                        for i, token in enumerate(target)
                    ],
                    dtype=np.float32,
                )
            )
            for source, target in pairs
        ]

    def align(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[AttentionWeights]:
        """Each target token attends to the source token at its place, the others to the first."""
        found = []
        for source, target in pairs:
            weights = np.zeros((len(target), len(source)), np.float32)
            for j in range(len(target)):
                weights[j, j if j < len(source) else 0] = 1
            found.append(weights)
        return found

    def attend(self, source: Sequence[int], target: Sequence[int]) -> Attention:
        """Every query attends to the first key."""
        return Attention(
            encoder=_first_keys(len(source), len(source)),
            decoder=_first_keys(len(target), len(target)),
            cross=_first_keys(len(target), len(source)),
        )


def _first_keys(num_queries: int, num_keys: int) -> LayerWeights:
    weights = np.zeros((1, 1, num_queries, num_keys), np.float32)
    weights[..., 0] = 1
    return LayerWeights(weights, (1,))


class FakeLanguageModel(FakeTranslationModel):
    """Continues a prompt as the fake translation model translates it.

    The rows hold the prompt, so that a row that lost a part of it gives different tokens.
    """

    def row_start(self, source: Sequence[int]) -> RowStart:
        return RowStart(source[-1], len(source) - 1)

    def first_tokens(self, source: tuple[int, ...]) -> tuple[int, ...]:
        return source[:-1]

    def after_row(self, source: tuple[int, ...], row: tuple[int, ...]) -> Sequence[float]:
        return self.log_probabilities(row[: len(source)], row[len(source) :])


class FakeEmbeddingModel:
    """A model whose pooled vectors are sum of token ids and length, and hidden states are ids."""

    num_layers = 2
    vocab_size = VOCAB
    reads_token_types = False

    def __init__(self) -> None:
        self.num_releases = 0
        self.batches: list[list[int]] = []
        """Text lengths of every batch."""

    def embed(
        self,
        texts: Sequence[Sequence[int]],
        outputs: Sequence[str],
        first_lengths: Sequence[int] | None = None,
        attended_lengths: Sequence[int] | None = None,
        num_prompt_tokens: Sequence[int | None] | None = None,
    ) -> dict[str, np.ndarray]:
        self.batches.append([len(text) for text in texts])
        longest = max(self.batches[-1])
        hidden = np.zeros((len(texts), longest, 1), dtype=np.float32)
        for row, text in enumerate(texts):
            hidden[row, : len(text), 0] = text
        pooled = np.array([[sum(text), len(text)] for text in texts], dtype=np.float32)
        return {name: hidden if name.startswith("hidden") else pooled for name in outputs}

    def attend(self, text: Sequence[int]) -> Attention:
        return Attention(_first_keys(len(text), len(text)))

    def release_memory(self) -> None:
        self.num_releases += 1

    def stop_runs(self) -> None:
        """A hook for subclasses that hang."""

    def fill(self, hidden: np.ndarray, top_k: int) -> MaskCandidates:
        ids = hidden[:, :1].astype(np.int64) + np.arange(top_k)  # (masks, top_k)
        return MaskCandidates(ids, np.full(ids.shape, 1 / top_k, dtype=np.float32))


class RecordingObserver:
    """Records every report."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.batches: list[BatchReport] = []
        self.dropped: list[tuple[str, int]] = []

    def on_step(self, model, report):
        self.steps.append(report)

    def on_batch(self, model, report):
        self.batches.append(report)

    def on_dropped(self, model, reason, num_texts):
        self.dropped.append((reason, num_texts))
