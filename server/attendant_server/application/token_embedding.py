"""Vectors of the tokens of texts, and of words and spans as means of those of their tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.data_types import ConvertedVectors, DataType, converted
from attendant_server.application.descriptions import ModelDescription, ModelKind
from attendant_server.application.jobs import JobRunner
from attendant_server.application.offset_units import OffsetUnit, TextOffsets
from attendant_server.application.splitting import Span
from attendant_server.application.text_roles import RoleOfTexts, role_of_texts
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
from attendant_server.application.vector_units import (
    GroupedText,
    TokenGroups,
    VectorUnit,
    chosen_unit,
)
from attendant_server.engine.encoder_calls import TOKEN_VECTORS, EmbedCall
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
    unit: int = 0
    """Number of a `VectorUnit`, 0 for tokens."""
    spans: Sequence[Sequence[Span]] = ()
    """The spans of each text, with spans as the unit."""
    offset_unit: int = 0
    """The unit of ``spans``: a number of `OffsetUnit`, 0 for code points."""


@dataclass(frozen=True, slots=True)
class TokenEmbeddings:
    """The vectors of the tokens, the words or the spans of one text."""

    tokens: TokenizedText
    groups: TokenGroups | None
    """The words or spans; None for vectors of tokens."""
    vectors: ConvertedVectors
    """(tokens, d) for at most one layer, or combined ones, else (layers, tokens, d). Words or spans
    take the place of tokens."""
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True)
class _ReadText:
    """A text before the model has run."""

    read: TokenizedText
    """The tokens that the model reads."""
    shown: TokenizedText
    """The tokens that have vectors."""
    rows: Sequence[int] | slice
    """The rows of ``shown`` in ``read``."""
    groups: TokenGroups | None

    def __len__(self) -> int:
        """Number of vectors."""
        return len(self.shown if self.groups is None else self.groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEmbeddingAnswer(Answer):
    """Vectors, or a fault, for each text, in the order of the request."""

    texts: Sequence[TokenEmbeddings | InvalidRequest]


class _Plan(NamedTuple):
    """The checked options of a call."""

    model: ServedModel
    outputs: tuple[str, ...]
    """The outputs of the model with the vectors of tokens."""
    vector_bytes: int
    """Size of the vectors of a token, a word or a span in an answer."""
    data_type: DataType
    combination: LayerCombination
    unit: VectorUnit
    offset_unit: OffsetUnit
    role: RoleOfTexts | None
    tokenization: TokenizationOptions

    def embeddings(
        self, text: _ReadText, result: Mapping[str, NDArray[np.float32]]
    ) -> TokenEmbeddings:
        """The answer for a text, from the outputs of the model (tokens, d)."""
        vectors = [result[output][text.rows] for output in self.outputs]
        if text.groups is not None:
            vectors = list(map(text.groups.means, vectors))
        whole = converted(self.combination.combined(vectors), self.data_type)
        return TokenEmbeddings(text.shown, text.groups, whole, self.tokenization.report(text.read))


class TokenEmbedder:
    """Embeds the tokens of texts with all embedding models."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def embed(
        self, request: TokenEmbeddingRequest, seconds_left: float | None
    ) -> TokenEmbeddingAnswer:
        """One vector for each token, word or span, from any layers or for late interaction.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        plan = self._plan(request)
        deadline = self._limits.deadline(plan.model.engine.clock(), seconds_left)
        texts = await self._read(plan, request)
        readable, record = list(good(texts)), records.current()
        size = sum(map(len, readable))
        field = "layers" if request.layers else "texts"
        self._limits.check_response(field, size * plan.vector_bytes)
        read = [text.read for text in readable]
        attended = () if plan.role is None else plan.role.attended_lengths(read)
        token_ids = [text.token_ids for text in read]
        results = await plan.model.answer(
            EmbedCall(token_ids, plan.outputs, deadline, attended_lengths=attended)
        )
        return TokenEmbeddingAnswer(
            model=plan.model.description.key,
            texts=merged(texts, results, plan.embeddings),
            num_input_tokens=sum(map(len, read)),
            phases=record.phases(),
            size=size,
        )

    def _plan(self, request: TokenEmbeddingRequest) -> _Plan:
        """Find the model and check the options; raises InvalidRequest."""
        self._limits.check_count("texts", len(request.texts))
        model = self._catalog.serving(request.model, ModelKind.EMBEDDING)
        description = model.description
        outputs, dimension = _token_outputs(request.layers, description)
        data_type = known_value("data_type", request.data_type, DataType.FLOAT32)
        combination = _combination(request)
        num_vectors = 1 if combination is LayerCombination.MEAN else len(outputs)
        unit = chosen_unit(request.unit, request.spans, len(request.texts))
        offset_unit = known_value("offset_unit", request.offset_unit, OffsetUnit.CODE_POINTS)
        role = role_of_texts(request.role, description)
        tokenization = tokenization_options(
            model.source_tokenizer,
            description.max_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
        )
        if role is not None:
            tokenization = role.tokenization(tokenization, description.mask_id)
        vector_bytes = TOKEN_BYTES + num_vectors * data_type.row_bytes(dimension)
        return _Plan(
            model,
            outputs,
            vector_bytes,
            data_type,
            combination,
            unit,
            offset_unit,
            role,
            tokenization,
        )

    async def _read(
        self, plan: _Plan, request: TokenEmbeddingRequest
    ) -> list[_ReadText | InvalidRequest]:
        """The parts of each text that have vectors, or its fault."""
        marker = "" if plan.role is None else plan.role.marker
        to_read = [marker + text for text in request.texts] if marker else request.texts
        tokenized = await tokenize(self._jobs, plan.tokenization, TEXTS, to_read)
        is_plain = plan.unit is VectorUnit.TOKENS and plan.role is None
        num_spans = sum(map(len, request.spans))
        size = 0 if is_plain else num_tokens(tokenized) + num_spans
        texts = await self._jobs.run_for(size, lambda: _read_texts(plan, request, tokenized))
        num_faults = len(list(good(tokenized))) - len(list(good(texts)))
        records.current().num_invalid_texts += num_faults
        return texts


def _read_texts(
    plan: _Plan, request: TokenEmbeddingRequest, tokenized: Sequence[TokenizedOrError]
) -> list[_ReadText | InvalidRequest]:
    found: list[_ReadText | InvalidRequest] = []
    for number, text in enumerate(tokenized):
        try:
            found.append(
                text if isinstance(text, InvalidRequest) else _read(plan, request, number, text)
            )
        except InvalidRequest as fault:
            found.append(fault)
    return found


def _read(
    plan: _Plan, request: TokenEmbeddingRequest, number: int, text: TokenizedText
) -> _ReadText:
    """The parts of text ``number`` that have vectors; raises InvalidRequest for a bad span."""
    shown, rows = (text, slice(None)) if plan.role is None else plan.role.kept(text)
    if plan.unit is VectorUnit.TOKENS:
        return _ReadText(text, shown, rows, groups=None)
    spans = request.spans[number] if plan.unit is VectorUnit.SPANS else None
    offsets = TextOffsets(request.texts[number], plan.offset_unit)
    groups = GroupedText(request.texts[number], text, shown, offsets).groups(number, spans)
    return _ReadText(text, shown, rows, groups)


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
