"""Parses responses about models and health into results, as `parsing` does those about texts."""

from collections.abc import Iterable
from typing import Any

from attendant.v1 import bundle_pb2, embedding_pb2, model_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from attendant_client import model_results as results
from attendant_client.parsing import choice


def model_infos(response: model_pb2.ListModelsResponse) -> list[results.ModelInfo]:
    """Parse the answer to ListModels."""
    return [model_info(info) for info in response.models]


def model(response: model_pb2.GetModelResponse) -> results.Model:
    """Parse the answer to GetModel."""
    sizes = response.WhichOneof("sizes")
    limits = response.limits
    request_limits = response.request_limits
    return results.Model(
        info=model_info(response.model),
        available_precisions=tuple(response.available_precisions),
        limits=results.Limits(
            limits.max_source_tokens, limits.max_target_tokens, limits.max_tokens
        ),
        request_limits=results.RequestLimits(
            max_texts=request_limits.max_texts,
            max_text_characters=request_limits.max_text_characters,
            max_beam_size=request_limits.max_beam_size,
            max_top_k=request_limits.max_top_k,
        ),
        sizes=_plain(getattr(response, sizes)) if sizes else {},
        default_pooling=_pooling(response.default_pooling),
        default_normalize=response.default_normalize,
        additional_poolings=tuple(filter(None, map(_pooling, response.additional_poolings))),
        trained_dimensions=tuple(response.trained_dimensions),
        default_dimensions=response.default_dimensions or None,
        aligns_words=response.aligns_words,
        has_attention=response.has_attention,
        prompts=dict(response.prompts),
        default_prompt=response.default_prompt,
        labels=tuple(response.labels),
        score_function=choice(embedding_pb2.ScoreFunction, response.score_function),
        default_max_active_dims=response.default_max_active_dims or None,
        max_query_tokens=response.max_query_tokens or None,
        expands_queries=response.expands_queries,
        license=response.license,
        credits=tuple(response.credits),
        provenance=_plain(response.provenance),
        quality=tuple(_quality_figure(figure) for figure in response.quality),
        parity=_plain(response.parity),
        controls=tuple(
            results.Control(each.name, each.description, tuple(each.values), each.default_value)
            for each in response.controls
        ),
        glossaries=tuple(response.glossaries),
    )


def health(response: health_pb2.HealthCheckResponse) -> str:
    """Parse the answer to Check: "serving", "not_serving" or "unknown"."""
    try:
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status).lower()
    except ValueError:
        return "unknown"


def model_info(info: model_pb2.ModelInfo) -> results.ModelInfo:
    """Parse the short description of a model."""
    return results.ModelInfo(
        name=info.name,
        version=info.version,
        kind=_named(bundle_pb2.ModelKind, "MODEL_KIND_", info.kind),
        state=choice(model_pb2.ModelState, info.state),
        is_default=info.is_default,
        source_language=info.source_language,
        target_language=info.target_language,
        languages=tuple(info.languages),
        precision=info.precision,
        description=info.description,
        source_languages=_all_languages(info.source_languages, info.source_language),
        target_languages=_all_languages(info.target_languages, info.target_language),
        is_default_of_kind=info.is_default_of_kind,
    )


def _all_languages(tags: Iterable[str], only: str) -> tuple[str, ...]:
    """All tags. A server of an earlier version sends the only one."""
    return tuple(tags) or ((only,) if only else ())


def _quality_figure(figure: bundle_pb2.QualityFigure) -> results.QualityFigure:
    return results.QualityFigure(
        figure.metric, figure.dataset, figure.precision, figure.search, figure.value
    )


def _pooling(number: int) -> str:
    return _named(embedding_pb2.Pooling, "POOLING_", number)


def _named(enum: Any, prefix: str, number: int) -> str:
    """Return the name of a value as in options; empty for none and for unknown ones."""
    if number == 0 or number not in enum.values():
        return ""
    return str(enum.Name(number)).removeprefix(prefix).lower()


def _plain(message: Message) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
