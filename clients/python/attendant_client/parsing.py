"""Parses responses of the contract into results.

Pure functions that know no channel. They raise ServerError for responses that violate the contract.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from attendant.v1 import bundle_pb2, embedding_pb2, model_pb2, text_pb2, translation_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from attendant_client import results
from attendant_client.errors import TextError, bad_answer, text_error
from attendant_client.options import Errors

Result = TypeVar("Result")


def translations(
    response: translation_pb2.TranslateResponse, num_texts: int, errors: Errors
) -> list[results.Translation]:
    """Parse the answer to Translate."""
    call = call_report(response)

    def parse(item: translation_pb2.Translation, error: TextError | None) -> results.Translation:
        return translation(item, call, error)

    return parse_all(response.translations, num_texts, errors, parse)


def translation(
    item: translation_pb2.Translation, call: results.CallReport, error: TextError | None
) -> results.Translation:
    """Parse the result for one text; `error` is its error, already parsed."""
    if error is None and not item.hypotheses:
        raise bad_answer("a translation has neither hypotheses nor an error")
    hypotheses = tuple(_hypothesis(hypothesis) for hypothesis in item.hypotheses)
    return results.Translation(hypotheses, item.num_source_tokens, truncation(item), error, call)


def stream_end(
    response: translation_pb2.StreamTranslateResponse,
) -> results.Translation | None:
    """Return the translation that the last message of a stream holds, None for other messages."""
    if not response.HasField("translation"):
        return None
    return translation(response.translation, call_report(response), None)


def scores(
    response: translation_pb2.ScoreResponse, num_pairs: int, errors: Errors
) -> list[results.TranslationScore]:
    """Parse the answer to Score."""
    call = call_report(response)

    def parse(
        item: translation_pb2.TranslationScore, error: TextError | None
    ) -> results.TranslationScore:
        return results.TranslationScore(
            score=item.score,
            log_probability=item.log_probability,
            log_probabilities=tuple(item.log_probabilities),
            tokens=_tokens(item.tokens),
            num_source_tokens=item.num_source_tokens,
            truncation=truncation(item),
            error=error,
            call=call,
        )

    return parse_all(response.scores, num_pairs, errors, parse)


def embeddings(
    response: embedding_pb2.EmbedResponse, num_texts: int, errors: Errors
) -> results.Embeddings:
    """Parse the answer to Embed."""

    def parse(item: embedding_pb2.EmbedResult, error: TextError | None) -> results.EmbedResult:
        return results.EmbedResult(item.num_tokens, truncation(item), error)

    rows = parse_all(response.results, num_texts, errors, parse)
    vectors = array(response.embeddings)  # (texts, dimension)
    if vectors.ndim != 2 or len(vectors) != num_texts:
        raise bad_answer(f"embeddings of shape {vectors.shape} for {num_texts} texts")
    return results.Embeddings(vectors, tuple(rows), call_report(response))


def token_embeddings(
    response: embedding_pb2.EmbedTokensResponse, num_texts: int, errors: Errors
) -> list[results.TokenEmbeddings]:
    """Parse the answer to EmbedTokens."""
    call = call_report(response)

    def parse(
        item: embedding_pb2.EmbedTokensResult, error: TextError | None
    ) -> results.TokenEmbeddings:
        if error is not None:
            nothing = np.zeros((0, 0), dtype=np.float32)
            return results.TokenEmbeddings((), nothing, truncation(item), error, call)
        vectors = array(item.embeddings)  # (tokens, dimension) or (layers, tokens, dimension)
        if vectors.ndim not in (2, 3) or vectors.shape[-2] != len(item.tokens):
            raise bad_answer(f"embeddings of shape {vectors.shape} for {len(item.tokens)} tokens")
        return results.TokenEmbeddings(_tokens(item.tokens), vectors, truncation(item), error, call)

    return parse_all(response.results, num_texts, errors, parse)


def filled_texts(
    response: embedding_pb2.FillMaskResponse, num_texts: int, errors: Errors
) -> list[results.FilledText]:
    """Parse the answer to FillMask."""
    call = call_report(response)

    def parse(item: embedding_pb2.FillMaskResult, error: TextError | None) -> results.FilledText:
        masks = tuple(_mask_fill(mask) for mask in item.masks)
        return results.FilledText(masks, truncation(item), error, call)

    return parse_all(response.results, num_texts, errors, parse)


def classified_texts(
    response: embedding_pb2.ClassifyResponse, num_texts: int, errors: Errors
) -> list[results.ClassifiedText]:
    """Parse the answer to Classify."""
    call = call_report(response)

    def parse(
        item: embedding_pb2.ClassifyResult, error: TextError | None
    ) -> results.ClassifiedText:
        labels = tuple(results.LabelScore(each.label, each.score) for each in item.labels)
        return results.ClassifiedText(labels, truncation(item), error, call)

    return parse_all(response.results, num_texts, errors, parse)


def tokenizations(
    response: model_pb2.TokenizeResponse, num_texts: int, errors: Errors
) -> list[results.Tokenization]:
    """Parse the answer to Tokenize."""

    def parse(item: model_pb2.TokenizeResult, error: TextError | None) -> results.Tokenization:
        return results.Tokenization(_tokens(item.tokens), error, response.model)

    return parse_all(response.results, num_texts, errors, parse)


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
        prompts=dict(response.prompts),
        default_prompt=response.default_prompt,
        labels=tuple(response.labels),
        score_function=_choice(embedding_pb2.ScoreFunction, response.score_function),
        default_max_active_dims=response.default_max_active_dims or None,
        max_query_tokens=response.max_query_tokens or None,
        expands_queries=response.expands_queries,
        license=response.license,
        credits=tuple(response.credits),
        provenance=_plain(response.provenance),
        quality=tuple(_quality_figure(figure) for figure in response.quality),
        parity=_plain(response.parity),
    )


def health(response: health_pb2.HealthCheckResponse) -> str:
    """Parse the answer to Check: "serving", "not_serving" or "unknown"."""
    try:
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status).lower()
    except ValueError:
        return "unknown"


def array(tensor: embedding_pb2.Tensor) -> results.FloatArray:
    """Copy a tensor into a float32 array of its shape."""
    if tensor.dtype != embedding_pb2.DATA_TYPE_FLOAT32:
        raise bad_answer(f"a tensor of data type {tensor.dtype}")
    shape = tuple(tensor.shape)
    if len(tensor.data) != 4 * math.prod(shape):
        raise bad_answer(f"a tensor of {len(tensor.data)} bytes and shape {shape}")
    return np.frombuffer(tensor.data, dtype="<f4").astype(np.float32).reshape(shape)


def parse_all(
    items: Sequence[Any],
    num_texts: int,
    errors: Errors,
    parse: Callable[[Any, TextError | None], Result],
) -> list[Result]:
    """Parse the results of all texts; raise the first text's error if `errors` is "raise"."""
    if len(items) != num_texts:
        raise bad_answer(f"{len(items)} results for {num_texts} texts")
    parsed = []
    for index, item in enumerate(items):
        error = text_error(item.error, index) if item.HasField("error") else None
        if error is not None and errors == "raise":
            raise error
        parsed.append(parse(item, error))
    return parsed


def call_report(response: Any) -> results.CallReport:
    """Parse the report on a whole call."""
    timings = response.timings

    def seconds(phase: str) -> float | None:
        duration: Duration = getattr(timings, phase)
        return duration.ToTimedelta().total_seconds() if timings.HasField(phase) else None

    return results.CallReport(
        model=response.model,
        num_input_tokens=response.token_counts.num_input_tokens,
        num_output_tokens=response.token_counts.num_output_tokens,
        queue_seconds=seconds("queue"),
        tokenize_seconds=seconds("tokenize"),
        encode_seconds=seconds("encode"),
        decode_seconds=seconds("decode"),
    )


def truncation(item: Any) -> results.TruncationReport | None:
    """Parse the report on the truncation of a text."""
    if not item.HasField("truncation"):
        return None
    report: text_pb2.TruncationReport = item.truncation
    return results.TruncationReport(
        report.num_original_tokens,
        report.num_kept_tokens,
        _choice(text_pb2.Truncation, report.truncation),
    )


def _tokens(tokens: Sequence[text_pb2.Token]) -> tuple[results.Token, ...]:
    return tuple(
        results.Token(token.id, token.text, token.start, token.end, token.special)
        for token in tokens
    )


def _hypothesis(hypothesis: translation_pb2.Hypothesis) -> results.Hypothesis:
    return results.Hypothesis(
        text=hypothesis.text,
        score=hypothesis.score,
        tokens=tuple(
            results.OutputToken(token.id, token.text, token.log_probability)
            for token in hypothesis.tokens
        ),
        finish_reason=_choice(translation_pb2.FinishReason, hypothesis.finish_reason),
    )


def _mask_fill(mask: embedding_pb2.FilledMask) -> results.MaskFill:
    candidates = tuple(
        results.MaskCandidate(candidate.id, candidate.text, candidate.probability)
        for candidate in mask.candidates
    )
    return results.MaskFill(mask.start, mask.end, candidates)


def model_info(info: model_pb2.ModelInfo) -> results.ModelInfo:
    """Parse the short description of a model."""
    return results.ModelInfo(
        name=info.name,
        version=info.version,
        kind=_choice(bundle_pb2.ModelKind, info.kind),
        state=_choice(model_pb2.ModelState, info.state),
        is_default=info.is_default,
        source_language=info.source_language,
        target_language=info.target_language,
        languages=tuple(info.languages),
        precision=info.precision,
        description=info.description,
        source_languages=_all_languages(info.source_languages, info.source_language),
        target_languages=_all_languages(info.target_languages, info.target_language),
    )


def _all_languages(tags: Iterable[str], only: str) -> tuple[str, ...]:
    """All tags. A server of an earlier version sends the only one."""
    return tuple(tags) or ((only,) if only else ())


def _quality_figure(figure: bundle_pb2.QualityFigure) -> results.QualityFigure:
    return results.QualityFigure(
        figure.metric, figure.dataset, figure.precision, figure.search, figure.value
    )


def _pooling(number: int) -> str:
    """Return the name of a pooling as in options; empty for none and for unknown ones."""
    if number == 0 or number not in embedding_pb2.Pooling.values():
        return ""
    name: str = embedding_pb2.Pooling.Name(number)  # type: ignore[arg-type]
    return name.removeprefix("POOLING_").lower()


def _choice(enum: Any, number: int) -> str:
    """Return the last word of an enum value's name: "stop" for FINISH_REASON_STOP.

    Empty for a value that is unspecified or unknown to this version of the contract.
    """
    if number == 0 or number not in enum.values():
        return ""
    return str(enum.Name(number)).rpartition("_")[2].lower()


def _plain(message: Message) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
