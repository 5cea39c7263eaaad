"""Vectors of texts and of their tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.descriptions import (
    COMMON_POOLINGS,
    ModelDescription,
    ModelKind,
    Pooling,
)
from attendant_server.application.jobs import JobRunner
from attendant_server.application.text_roles import role_of_texts
from attendant_server.application.tokenization import (
    TokenizedOrError,
    good,
    merged,
    num_tokens,
    tokenize,
)
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    TruncationReport,
    tokenization_options,
)
from attendant_server.application.validation import (
    TEXTS,
    TOKEN_BYTES,
    RequestLimits,
    check_range,
    known_value,
)
from attendant_server.engine.calls import TOKEN_VECTORS, EmbedCall
from attendant_server.errors import InvalidRequest
from attendant_server.tokenized_text import TokenizedText

FLOAT_BYTES = 4
OUTPUTS = {
    Pooling.MEAN: "mean_pooled",
    Pooling.CLS: "cls_pooled",
    Pooling.MAX: "max_pooled",
    Pooling.LAST: "last_pooled",
    Pooling.WEIGHTED_MEAN: "weighted_mean_pooled",
    Pooling.MEAN_SQRT_LENGTH: "mean_sqrt_length_pooled",
}


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


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """The token count and truncation of one text."""

    num_tokens: int
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingAnswer(Answer):
    """A vector for each text, in the order of the request."""

    vectors: NDArray[np.float32]  # (texts, d); zeros for a text with a fault
    texts: Sequence[EmbeddedText | InvalidRequest]


@dataclass(frozen=True, slots=True)
class TokenEmbeddingRequest:
    """Texts whose tokens to embed. Layers count from 0, negative layers from the end."""

    texts: Sequence[str]
    model: str = ""
    layers: Sequence[int] = ()
    truncation: int = 0
    text_normalization: int = 0
    role: int = 0
    """Number of a `TextRole`, 0 for none."""


@dataclass(frozen=True, slots=True)
class TokenEmbeddings:
    """The tokens of one text with their vectors."""

    tokens: TokenizedText
    layers: Sequence[NDArray[np.float32]]
    """One array per requested layer, or one for late interaction: (tokens, d)."""
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEmbeddingAnswer(Answer):
    """Vectors, or a fault, for each text, in the order of the request."""

    texts: Sequence[TokenEmbeddings | InvalidRequest]


AnyRequest: TypeAlias = EmbeddingRequest | TokenEmbeddingRequest


class Embedder:
    """Embeds texts with all embedding models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def embed(self, request: EmbeddingRequest, seconds_left: float | None) -> EmbeddingAnswer:
        """One vector for each text.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        model = self._checked_model(request)
        description = model.description
        output = OUTPUTS[_chosen_pooling(request.pooling, description)]
        num_bytes = len(request.texts) * description.text_dimension * FLOAT_BYTES
        self._limits.check_response("texts", num_bytes)
        prompt = description.prompts.get(description.default_prompt, "")
        tokenization = tokenization_options(
            model.source_tokenizer,
            description.max_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
            prompt_length=len(prompt),
        )
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)

        to_read = [prompt + text for text in request.texts] if prompt else request.texts
        texts = await tokenize(self._jobs, tokenization, TEXTS, to_read)
        call = EmbedCall([text.token_ids for text in good(texts)], (output,), deadline)
        results = await model.answer(call)

        vectors = _stacked(
            texts, [result[output] for result in results], description.text_dimension
        )
        default = description.default_normalize
        if default if request.normalize is None else request.normalize:
            _normalize(vectors)
        return EmbeddingAnswer(
            model=description.key,
            vectors=vectors,
            texts=[_embedded_text(tokenization, text) for text in texts],
            num_input_tokens=num_tokens(texts),
            phases=records.current().phases(),
            size=len(texts),
        )

    async def embed_tokens(
        self, request: TokenEmbeddingRequest, seconds_left: float | None
    ) -> TokenEmbeddingAnswer:
        """One vector for each token of each text, from any layers or for late interaction."""
        model = self._checked_model(request)
        description = model.description
        outputs, dimension = _token_outputs(request.layers, description)
        role = role_of_texts(request.role, description)
        tokenization = tokenization_options(
            model.source_tokenizer,
            description.max_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
        )
        to_read = request.texts
        if role is not None:
            tokenization = role.tokenization(tokenization, description.mask_id)
            to_read = [role.marker + text for text in request.texts]
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)

        texts = await tokenize(self._jobs, tokenization, TEXTS, to_read)
        token_bytes = TOKEN_BYTES + len(outputs) * dimension * FLOAT_BYTES
        size = num_tokens(texts)
        self._limits.check_response("layers" if request.layers else "texts", size * token_bytes)
        readable = list(good(texts))
        attended = () if role is None else role.attended_lengths(readable)
        token_ids = [text.token_ids for text in readable]
        results = await model.answer(
            EmbedCall(token_ids, outputs, deadline, attended_lengths=attended)
        )

        def build(
            text: TokenizedText, result: Mapping[str, NDArray[np.float32]]
        ) -> TokenEmbeddings:
            report, vectors = tokenization.report(text), [result[output] for output in outputs]
            kept, vectors = (text, vectors) if role is None else role.kept(text, vectors)
            return TokenEmbeddings(kept, vectors, report)

        return TokenEmbeddingAnswer(
            model=description.key,
            texts=merged(texts, results, build),
            num_input_tokens=size,
            phases=records.current().phases(),
            size=size,
        )

    def _checked_model(self, request: AnyRequest) -> ServedModel:
        self._limits.check_count("texts", len(request.texts))
        return self._catalog.serving(request.model, ModelKind.EMBEDDING)


def _token_outputs(
    layers: Sequence[int], description: ModelDescription
) -> tuple[tuple[str, ...], int]:
    """The outputs with the vectors of tokens, and their dimension; raises InvalidRequest."""
    if description.token_dimension and not layers:
        return (TOKEN_VECTORS,), description.token_dimension
    chosen = chosen_layers(layers, description.num_layers)
    return tuple(f"hidden_{layer}" for layer in chosen), description.d_model


def chosen_layers(requested: Sequence[int], num_layers: int) -> list[int]:
    """The requested layers, counted from 0, in the order of the request; raises InvalidRequest."""
    if len(requested) > num_layers + 1:
        raise InvalidRequest("layers", f"at most {num_layers + 1}, got {len(requested)}")
    for layer in requested:
        check_range("layers", layer, -(num_layers + 1), num_layers)
    chosen = [layer % (num_layers + 1) for layer in requested or (-1,)]
    if len(set(chosen)) < len(chosen):
        raise InvalidRequest("layers", "each layer at most once")
    return chosen


def _chosen_pooling(requested: int, description: ModelDescription) -> Pooling:
    """The requested pooling, by default the model's. Raises InvalidRequest if it lacks it."""
    pooling = known_value("pooling", requested, description.default_pooling)
    offered = (*COMMON_POOLINGS, *description.additional_poolings)
    if pooling not in offered:
        names = ", ".join(each.name for each in offered)
        raise InvalidRequest("pooling", f"is {pooling.name}, but the model offers {names}")
    return pooling


def _embedded_text(
    tokenization: TokenizationOptions, text: TokenizedOrError
) -> EmbeddedText | InvalidRequest:
    if isinstance(text, InvalidRequest):
        return text
    return EmbeddedText(len(text), tokenization.report(text))


def _stacked(
    texts: Sequence[TokenizedOrError], vectors: Sequence[NDArray[np.float32]], dimension: int
) -> NDArray[np.float32]:  # (texts, d)
    """The vectors of all texts, with zeros for texts with a fault."""
    stacked = np.zeros((len(texts), dimension), np.float32)
    if vectors:
        is_good = [not isinstance(text, InvalidRequest) for text in texts]
        stacked[is_good] = np.stack(vectors)
    return stacked


def _normalize(vectors: NDArray[np.float32]) -> None:
    """Scale each row to length 1 in place, except rows of zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)  # (texts, 1)
    lengths[lengths == 0] = 1
    vectors /= lengths
