"""Vectors of the tokens of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog
from attendant_server.application.data_types import ConvertedVectors, DataType, converted
from attendant_server.application.descriptions import ModelDescription, ModelKind
from attendant_server.application.jobs import JobRunner
from attendant_server.application.text_roles import role_of_texts
from attendant_server.application.tokenization import good, merged, num_tokens, tokenize
from attendant_server.application.tokenization_options import (
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


class LayerCombination(IntEnum):
    """Combinations of the vectors of several layers; numbered as in the contract."""

    NONE = 1
    MEAN = 2
    CONCATENATION = 3

    def combined(self, layers: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The vectors (tokens, d) of layers as one array; (layers, tokens, d) of several alone."""
        if len(layers) == 1:
            return layers[0]
        if self is LayerCombination.CONCATENATION:
            return np.concatenate(layers, axis=-1)
        stacked = np.stack(layers)
        if self is LayerCombination.MEAN:
            return np.asarray(stacked.mean(axis=0, dtype=np.float64), np.float32)
        return stacked


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
    data_type: int = 0
    """Number of a `DataType`, 0 for the default."""
    layer_combination: int = 0
    """Number of a `LayerCombination`, 0 for none."""


@dataclass(frozen=True, slots=True)
class TokenEmbeddings:
    """The tokens of one text with their vectors."""

    tokens: TokenizedText
    vectors: ConvertedVectors
    """(tokens, d) for at most one layer, or combined ones, else (layers, tokens, d)."""
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEmbeddingAnswer(Answer):
    """Vectors, or a fault, for each text, in the order of the request."""

    texts: Sequence[TokenEmbeddings | InvalidRequest]


class TokenEmbedder:
    """Embeds the tokens of texts with all embedding models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def embed(
        self, request: TokenEmbeddingRequest, seconds_left: float | None
    ) -> TokenEmbeddingAnswer:
        """One vector for each token of each text, from any layers or for late interaction.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        self._limits.check_count("texts", len(request.texts))
        model = self._catalog.serving(request.model, ModelKind.EMBEDDING)
        description = model.description
        outputs, dimension = _token_outputs(request.layers, description)
        data_type = known_value("data_type", request.data_type, DataType.FLOAT32)
        combination = _combination(request)
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
        num_vectors = 1 if combination is LayerCombination.MEAN else len(outputs)
        token_bytes = TOKEN_BYTES + num_vectors * data_type.row_bytes(dimension)
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
            whole = combination.combined(vectors)
            return TokenEmbeddings(kept, converted(whole, data_type), report)

        return TokenEmbeddingAnswer(
            model=description.key,
            texts=merged(texts, results, build),
            num_input_tokens=size,
            phases=records.current().phases(),
            size=size,
        )


def _combination(request: TokenEmbeddingRequest) -> LayerCombination:
    """The requested combination of layers; raises InvalidRequest for one without layers."""
    found = known_value("layer_combination", request.layer_combination, LayerCombination.NONE)
    if found is not LayerCombination.NONE and not request.layers:
        raise InvalidRequest("layer_combination", "needs layers")
    return found


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
