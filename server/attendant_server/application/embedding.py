"""Vectors of texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog
from attendant_server.application.data_types import ConvertedVectors, DataType, converted
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.jobs import JobRunner
from attendant_server.application.prompts import PromptChoice, chosen_prompt
from attendant_server.application.tokenization import (
    TokenizedOrError,
    good,
    num_tokens,
    tokenize,
)
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    TruncationReport,
    tokenization_options,
)
from attendant_server.application.validation import TEXTS, RequestLimits, known_value
from attendant_server.application.vectors import chosen_dimension, chosen_output
from attendant_server.engine.calls import EmbedCall
from attendant_server.errors import InvalidRequest


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


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """The token count and truncation of one text."""

    num_tokens: int
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingAnswer(Answer):
    """A vector for each text, in the order of the request."""

    vectors: ConvertedVectors  # (texts, d); zeros for a text with a fault
    texts: Sequence[EmbeddedText | InvalidRequest]


class Embedder:
    """Embeds texts with all embedding models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def embed(self, request: EmbeddingRequest, seconds_left: float | None) -> EmbeddingAnswer:
        """One vector for each text.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        limits = self._limits
        limits.check_count("texts", len(request.texts))
        model = self._catalog.serving(request.model, ModelKind.EMBEDDING)
        description, max_characters = model.description, limits.max_text_characters
        output = chosen_output(request.pooling, description)
        dimension = chosen_dimension(request.dimensions, request.force_dimensions, description)
        data_type = known_value("data_type", request.data_type, DataType.FLOAT32)
        limits.check_response("texts", len(request.texts) * data_type.row_bytes(dimension))
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
        deadline = limits.deadline(model.engine.clock(), seconds_left)

        texts = await tokenize(self._jobs, tokenization, TEXTS, prompt.before(request.texts))
        token_ids = [text.token_ids for text in good(texts)]
        results = await model.answer(
            EmbedCall(
                token_ids,
                (output,),
                deadline,
                num_prompt_tokens=prompt.num_tokens_of(len(token_ids)),
            )
        )

        vectors = _stacked(texts, [result[output] for result in results], dimension)
        default = description.default_normalize
        if default if request.normalize is None else request.normalize:
            _normalize(vectors)
        return EmbeddingAnswer(
            model=description.key,
            vectors=converted(vectors, data_type),
            texts=[embedded_text(tokenization, text) for text in texts],
            num_input_tokens=num_tokens(texts),
            phases=records.current().phases(),
            size=len(texts),
        )


def embedded_text(
    tokenization: TokenizationOptions, text: TokenizedOrError
) -> EmbeddedText | InvalidRequest:
    """The result of a text, without its vector."""
    if isinstance(text, InvalidRequest):
        return text
    return EmbeddedText(len(text), tokenization.report(text))


def _stacked(
    texts: Sequence[TokenizedOrError], vectors: Sequence[NDArray[np.float32]], dimension: int
) -> NDArray[np.float32]:  # (texts, d)
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
