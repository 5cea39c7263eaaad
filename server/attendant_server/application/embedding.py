"""Vectors of texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.chunking import (
    Chunk,
    ChunkedText,
    ChunkOptions,
    ChunkReader,
    chunk_reader,
)
from attendant_server.application.data_types import ConvertedVectors, DataType, converted
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.jobs import JobRunner
from attendant_server.application.prompts import Prompt, PromptChoice, chosen_prompt
from attendant_server.application.tokenization import (
    good,
    num_tokens,
    read_texts,
    tokenize,
)
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    TruncationReport,
    tokenization_options,
)
from attendant_server.application.validation import TEXTS, RequestLimits, known_value
from attendant_server.application.vectors import chosen_dimension, chosen_output
from attendant_server.engine.calls import joined_timings
from attendant_server.engine.encoder_calls import EmbedCall
from attendant_server.errors import InvalidRequest
from attendant_server.tokenized_text import TokenizedText

CHUNK_BYTES = 16
"""Size of the offsets and the token count of a chunk in an answer, at most."""
MAX_CHUNKS_TOGETHER = 256
"""Chunks that are submitted to the engine together."""


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to embed.

    ``pooling``, ``truncation`` and ``text_normalization`` are numbers of their enums, 0 for the
    default.
    """

    texts: Sequence[str]
    model: str = ""
    pooling: int = 0
    normalize: bool | None = None
    truncation: int = 0
    text_normalization: int = 0
    dimensions: int | None = None
    """Number of first values of each vector to keep. None for all."""
    force_dimensions: bool = False
    """Whether the model need not be trained for that number."""
    prompt: PromptChoice = PromptChoice()
    data_type: int = 0
    """Number of a `DataType`, 0 for the default."""
    chunks: ChunkOptions = ChunkOptions()
    may_wait: bool = False
    """Whether the texts wait for room in the queue instead of being refused."""


class EmbeddingPlan(NamedTuple):
    """The checked options of a call."""

    model: ServedModel
    output: str
    """The output of the model that is returned."""
    dimension: int
    data_type: DataType
    prompt: Prompt
    tokenization: TokenizationOptions
    chunked: tuple[ChunkReader, TokenizationOptions] | None
    """The reader of texts in chunks and its options; None for whole texts."""
    normalizes: bool


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """The token count and truncation, or the chunks, of one text."""

    num_tokens: int
    truncation: TruncationReport | None
    chunks: Sequence[Chunk] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingAnswer(Answer):
    """Vectors in the order of the request."""

    vectors: ConvertedVectors
    """(texts, d) with zeros for a text with a fault; (chunks, d) of chunks without averages."""
    texts: Sequence[EmbeddedText | InvalidRequest]


class Embedder:
    """Embeds texts with all embedding models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def embed(self, request: EmbeddingRequest, seconds_left: float | None) -> EmbeddingAnswer:
        """One vector for each text.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        self._limits.check_count("texts", len(request.texts))
        plan = await self.plan(request, len(request.texts))
        deadline = self._limits.deadline(plan.model.engine.clock(), seconds_left)
        texts, token_ids = await self._read(plan, request)
        calls = [
            EmbedCall(
                part,
                (plan.output,),
                deadline,
                num_prompt_tokens=plan.prompt.num_tokens_of(len(part)),
            )
            for part in _parts(token_ids, len(texts))
        ]
        results = await _answered(plan.model, calls, request.may_wait)
        rows = [result[plan.output] for result in results]
        vectors = _vectors(plan, request.chunks, texts, rows)
        return EmbeddingAnswer(
            model=plan.model.description.key,
            vectors=converted(vectors, plan.data_type),
            texts=[embedded_text(plan.tokenization, text) for text in texts],
            num_input_tokens=num_tokens(texts),
            phases=records.current().phases(),
            size=len(texts),
        )

    async def plan(self, request: EmbeddingRequest, num_texts: int) -> EmbeddingPlan:
        """Find the model and check the options for calls with ``num_texts`` texts."""
        limits = self._limits
        model = self._catalog.serving(request.model, ModelKind.EMBEDDING)
        description, max_characters = model.description, limits.max_text_characters
        output = chosen_output(request.pooling, description)
        dimension = chosen_dimension(request.dimensions, request.force_dimensions, description)
        data_type = known_value("data_type", request.data_type, DataType.FLOAT32)
        limits.check_response("texts", num_texts * data_type.row_bytes(dimension))
        prompt = await chosen_prompt(
            request.prompt, model, self._jobs, max_characters, request.text_normalization
        )
        tokenization = tokenization_options(
            model.source_tokenizer,
            description.max_tokens,
            max_characters,
            request.truncation,
            request.text_normalization,
            prompt_length=len(prompt.text),
        )
        normalizes = description.default_normalize
        return EmbeddingPlan(
            model,
            output,
            dimension,
            data_type,
            prompt,
            tokenization,
            chunk_reader(request.chunks, tokenization, prompt.text, description),
            normalizes if request.normalize is None else request.normalize,
        )

    async def _read(
        self, plan: EmbeddingPlan, request: EmbeddingRequest
    ) -> tuple[Sequence[TokenizedText | ChunkedText | InvalidRequest], list[list[int]]]:
        """The texts, or their faults, and the tokens of all good texts or of their chunks."""
        if plan.chunked is None:
            given = plan.prompt.before(request.texts)
            texts = await tokenize(self._jobs, plan.tokenization, TEXTS, given)
            return texts, [text.token_ids for text in good(texts)]
        reader, options = plan.chunked
        chunked = await read_texts(self._jobs, options, TEXTS, request.texts, reader)
        token_ids = _of_chunks(chunked)
        row_bytes = CHUNK_BYTES
        row_bytes += 0 if request.chunks.averages else plan.data_type.row_bytes(plan.dimension)
        self._limits.check_response("texts", len(token_ids) * row_bytes)
        return chunked, token_ids


def embedded_text(
    tokenization: TokenizationOptions, text: TokenizedText | ChunkedText | InvalidRequest
) -> EmbeddedText | InvalidRequest:
    """The result of a text, without its vector."""
    if isinstance(text, InvalidRequest):
        return text
    if isinstance(text, ChunkedText):
        return EmbeddedText(len(text), None, text.chunks)
    return EmbeddedText(len(text), tokenization.report(text))


def _of_chunks(texts: Sequence[ChunkedText | InvalidRequest]) -> list[list[int]]:
    """The tokens of the chunks of all texts."""
    return [chunk.token_ids for text in good(texts) for chunk in text.chunks]


def _parts(token_ids: Sequence[list[int]], num_texts: int) -> Iterator[Sequence[list[int]]]:
    """All texts without chunks together; many chunks in parts, of which the first may be refused.

    There is one part at least.
    """
    size = max(MAX_CHUNKS_TOGETHER, num_texts)
    for first in range(0, max(1, len(token_ids)), size):
        yield token_ids[first : first + size]


async def _answered(
    model: ServedModel, calls: Sequence[EmbedCall], may_wait: bool
) -> list[dict[str, NDArray[np.float32]]]:
    """The results of all calls."""
    results = []
    for number, call in enumerate(calls):
        results += await model.answer(call, may_wait or number > 0)
    if len(calls) > 1:
        records.current().engine = joined_timings([call.timings for call in calls])
    return results


def _vectors(
    plan: EmbeddingPlan,
    chunks: ChunkOptions,
    texts: Sequence[Any],
    rows: Sequence[NDArray[np.float32]],
) -> NDArray[np.float32]:
    """The vectors of an answer, from those of the texts or of the chunks."""
    if plan.chunked is None:
        vectors = _stacked(texts, rows, plan.dimension)
    elif chunks.averages:
        vectors = _averages(texts, rows, plan.dimension)
    else:
        kept = [row[: plan.dimension] for row in rows]
        vectors = np.array(kept, np.float32).reshape(-1, plan.dimension)
    if plan.normalizes:
        _normalize(vectors)
    return vectors


def _averages(
    texts: Sequence[Any], vectors: Sequence[NDArray[np.float32]], dimension: int
) -> NDArray[np.float32]:  # (texts, d)
    """The averages of the first values of the vectors of each text's chunks, by their tokens."""
    averages, remaining = np.zeros((len(texts), dimension), np.float32), iter(vectors)
    for row, text in enumerate(texts):
        if isinstance(text, ChunkedText):
            weights = np.array([len(chunk.token_ids) for chunk in text.chunks], np.float64)
            rows = np.stack([next(remaining)[:dimension] for _ in text.chunks])  # (chunks, d)
            averages[row] = weights @ rows / weights.sum()
    return averages


def _stacked(
    texts: Sequence[Any], vectors: Sequence[NDArray[np.float32]], dimension: int
) -> NDArray[np.float32]:
    """The first values of all vectors, with zeros for texts with a fault."""
    stacked = np.zeros((len(texts), dimension), np.float32)
    if vectors:
        is_good = [not isinstance(text, InvalidRequest) for text in texts]
        stacked[is_good] = np.stack(vectors)[:, :dimension]
    return stacked


def _normalize(vectors: NDArray[np.float32]) -> None:
    """Scale each row to length 1 in place, except rows of zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)  # (texts, 1)
    lengths[lengths == 0] = 1
    vectors /= lengths
