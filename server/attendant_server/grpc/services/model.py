"""ModelService: ListModels, GetModel, Tokenize and GetAttention."""

from collections.abc import Sequence
from typing import cast

from attendant.v1 import (
    attention_pb2,
    bundle_pb2,
    embedding_pb2,
    model_pb2,
    model_pb2_grpc,
    text_pb2,
)
from google.protobuf import json_format

from attendant_server.application.application import Application
from attendant_server.application.attention import AttentionRequest
from attendant_server.application.descriptions import (
    Control,
    ModelDescription,
    ModelKind,
    Pooling,
)
from attendant_server.application.models import ListedModel, TokenizationAnswer, TokenizationRequest
from attendant_server.application.tokenization import (
    TokenizedOrError,
)
from attendant_server.application.validation import RequestLimits
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.context import Context
from attendant_server.grpc.services.attention_messages import attention_response
from attendant_server.grpc.services.messages import fault, given, tokens
from attendant_server.grpc.services.offset_units import OffsetConverter


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Describes the models, and shows how they read texts."""

    def __init__(self, application: Application) -> None:
        self._models, self._jobs = application.models, application.jobs
        self._attention_reader = application.attention_reader

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse:
        """All models, including models that are still loading."""
        return model_pb2.ListModelsResponse(models=map(model_info, self._models.list()))

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: Context
    ) -> model_pb2.GetModelResponse:
        """Everything about one model."""
        return _get_model_response(self._models.get(request.model), self._models.limits)

    async def Tokenize(
        self, request: model_pb2.TokenizeRequest, context: Context
    ) -> model_pb2.TokenizeResponse:
        """The tokens that the model would read."""
        offsets = OffsetConverter(request)
        answer = await self._models.tokenize(
            TokenizationRequest(
                texts=list(request.texts),
                model=request.model,
                side=request.side,
                text_normalization=request.text_normalization,
            )
        )
        return await self._jobs.run_for(
            answer.size, lambda: offsets.of_texts(_tokenize_response(answer), request.texts)
        )

    async def GetAttention(
        self, request: attention_pb2.GetAttentionRequest, context: Context
    ) -> attention_pb2.GetAttentionResponse:
        """The attention weights of all layers and heads."""
        offsets = OffsetConverter(request)
        answer = await self._attention_reader.read(
            AttentionRequest(
                text=request.text,
                target=given(request, "target"),
                model=request.model,
                source_language=request.source_language,
                target_language=request.target_language,
                text_normalization=request.text_normalization,
            ),
            context.time_remaining(),
        )
        return await self._jobs.run_for(
            answer.size, lambda: offsets.of_attention(attention_response(answer), request.text)
        )


def _get_model_response(model: ListedModel, limits: RequestLimits) -> model_pb2.GetModelResponse:
    description = model.description
    response = model_pb2.GetModelResponse(
        model=model_info(model),
        available_precisions=description.available_precisions,
        request_limits=_request_limits(description.kind, limits),
        default_pooling=_pooling(description),
        default_normalize=description.default_normalize,
        default_text_normalization=(
            text_pb2.TEXT_NORMALIZATION_STANDARD
            if description.normalizes_texts
            else text_pb2.TEXT_NORMALIZATION_NONE
        ),
        prompts=description.prompts,
        default_prompt=description.default_prompt,
        additional_poolings=map(_number, description.additional_poolings),
        trained_dimensions=description.trained_dimensions,
        default_dimensions=description.default_dimensions or None,
        default_min_output_tokens=description.default_min_output_tokens,
        early_stopping=description.early_stopping,
        no_repeat_ngram_size=description.no_repeat_ngram_size,
        aligns_words=description.can_align,
        controls=map(_control, description.controls),
        has_attention=description.has_attention,
        glossaries=description.glossaries,
    )
    if description.labels:
        response.labels.extend(description.labels)
        response.score_function = cast(
            "embedding_pb2.ScoreFunction.ValueType", description.score_function.value
        )
    if description.default_max_active_dims:
        response.default_max_active_dims = description.default_max_active_dims
    if description.late_interaction is not None:
        response.max_query_tokens = description.late_interaction.max_query_tokens
        response.expands_queries = description.late_interaction.expands_queries
    if description.default_beam_size != 1:
        response.default_beam_size = min(description.default_beam_size, limits.max_beam_size)
    if description.default_length_penalty != 1:
        response.default_length_penalty = description.default_length_penalty
    if description.kind is ModelKind.TRANSLATION:
        response.default_repetition_guard = description.repetition_guard
        response.default_splitting = cast(
            "text_pb2.Splitting.ValueType", description.default_splitting
        )
    if description.repetition_penalty != 1:
        response.repetition_penalty = description.repetition_penalty
    return json_format.ParseDict(description.published, response)


def _control(control: Control) -> model_pb2.ControlInfo:
    return model_pb2.ControlInfo(
        name=control.name,
        description=control.description,
        values=control.values,
        default_value=control.default_value,
    )


def _pooling(description: ModelDescription) -> "embedding_pb2.Pooling.ValueType":
    if description.kind is not ModelKind.EMBEDDING:
        return embedding_pb2.POOLING_UNSPECIFIED
    return _number(description.default_pooling)


def _number(pooling: Pooling) -> "embedding_pb2.Pooling.ValueType":
    return cast("embedding_pb2.Pooling.ValueType", pooling.value)


def model_info(model: ListedModel) -> model_pb2.ModelInfo:
    """The short description of a model as a message."""
    description = model.description
    source_languages = [language.tag for language in description.source_languages]
    target_languages = [language.tag for language in description.target_languages]
    return model_pb2.ModelInfo(
        name=description.name,
        version=description.version,
        kind=cast("bundle_pb2.ModelKind.ValueType", description.kind.value),
        state=model_pb2.MODEL_STATE_READY if model.is_ready else model_pb2.MODEL_STATE_LOADING,
        is_default=model.is_default,
        is_default_of_kind=model.is_default_of_kind,
        source_language=_only(source_languages),
        target_language=_only(target_languages),
        languages=description.languages,
        precision=description.precision,
        description=description.description,
        source_languages=source_languages,
        target_languages=target_languages,
    )


def _only(tags: Sequence[str]) -> str:
    return tags[0] if len(tags) == 1 else ""


def _request_limits(kind: ModelKind, limits: RequestLimits) -> model_pb2.RequestLimits:
    return model_pb2.RequestLimits(
        max_texts=limits.max_texts,
        max_text_characters=limits.max_text_characters,
        max_beam_size=limits.max_beam_size if kind.decodes else 0,
        max_top_k=limits.max_top_k if kind is ModelKind.EMBEDDING else 0,
    )


def _tokenize_response(answer: TokenizationAnswer) -> model_pb2.TokenizeResponse:
    return model_pb2.TokenizeResponse(results=map(_result, answer.texts), model=answer.model)


def _result(text: TokenizedOrError) -> model_pb2.TokenizeResult:
    if isinstance(text, InvalidRequest):
        return model_pb2.TokenizeResult(error=fault(text))
    return model_pb2.TokenizeResult(tokens=tokens(text))
