"""Every RPC as a value: its method, its request and the parser of its response.

Both clients share this module: they differ only in how they wait. Knows no channel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, Unpack

import numpy as np
from attendant.v1 import embedding_pb2, model_pb2, text_pb2, translation_pb2
from google.protobuf.message import Message

from attendant_client import parsing, results
from attendant_client.options import Errors, Pooling, Role, SearchOptions, Side, Truncation

Result = TypeVar("Result")

TRUNCATIONS: dict[str, text_pb2.Truncation.ValueType] = {
    "refuse": text_pb2.TRUNCATION_REFUSE,
    "right": text_pb2.TRUNCATION_RIGHT,
    "left": text_pb2.TRUNCATION_LEFT,
}
POOLINGS: dict[str | None, embedding_pb2.Pooling.ValueType] = {
    None: embedding_pb2.POOLING_UNSPECIFIED,
    "mean": embedding_pb2.POOLING_MEAN,
    "cls": embedding_pb2.POOLING_CLS,
    "max": embedding_pb2.POOLING_MAX,
    "last": embedding_pb2.POOLING_LAST,
    "weighted_mean": embedding_pb2.POOLING_WEIGHTED_MEAN,
    "mean_sqrt_length": embedding_pb2.POOLING_MEAN_SQRT_LENGTH,
}
ROLES: dict[str | None, embedding_pb2.TextRole.ValueType] = {
    None: embedding_pb2.TEXT_ROLE_UNSPECIFIED,
    "query": embedding_pb2.TEXT_ROLE_QUERY,
    "document": embedding_pb2.TEXT_ROLE_DOCUMENT,
}
SIDES: dict[str, model_pb2.TextSide.ValueType] = {
    "source": model_pb2.TEXT_SIDE_SOURCE,
    "target": model_pb2.TEXT_SIDE_TARGET,
}
ERRORS = ("raise", "return")


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One RPC to be made; `parse` turns a message of `response_type` into the result.

    `is_idempotent` says whether it may be repeated although it may have been carried out.
    """

    method: str
    request: Message
    response_type: type[Message]
    parse: Callable[[Any], Result]
    is_idempotent: bool = True


def translate(
    texts: str | Sequence[str],
    *,
    model: str = "",
    source_language: str = "",
    target_language: str = "",
    truncation: Truncation = "refuse",
    errors: Errors = "raise",
    **search: Unpack[SearchOptions],
) -> Call[list[results.Translation]]:
    """Build a Translate call."""
    request = translation_pb2.TranslateRequest(
        model=model,
        texts=text_list(texts),
        options=_search_options(**search),
        source_language=source_language,
        target_language=target_language,
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    parse = partial(parsing.translations, num_texts=len(request.texts), errors=checked(errors))
    return Call(
        "/attendant.v1.TranslationService/Translate",
        request,
        translation_pb2.TranslateResponse,
        parse,
    )


def stream_translate(
    text: str,
    *,
    model: str = "",
    source_language: str = "",
    target_language: str = "",
    truncation: Truncation = "refuse",
    **search: Unpack[SearchOptions],
) -> Call[results.Translation | None]:
    """Build a StreamTranslate call. Only the last message parses to a Translation."""
    request = translation_pb2.StreamTranslateRequest(
        model=model,
        text=text,
        options=_search_options(**search),
        source_language=source_language,
        target_language=target_language,
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    return Call(
        "/attendant.v1.TranslationService/StreamTranslate",
        request,
        translation_pb2.StreamTranslateResponse,
        parsing.stream_end,
    )


def score(
    pairs: Sequence[tuple[str, str]],
    *,
    model: str = "",
    source_language: str = "",
    target_language: str = "",
    truncation: Truncation = "refuse",
    errors: Errors = "raise",
    length_penalty: float | None = None,
    return_tokens: bool = False,
) -> Call[list[results.TranslationScore]]:
    """Build a Score call."""
    request = translation_pb2.ScoreRequest(
        model=model,
        pairs=[
            translation_pb2.TranslationPair(source=source, target=target)
            for source, target in pairs
        ],
        length_penalty=length_penalty,
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
        source_language=source_language,
        target_language=target_language,
        return_tokens=return_tokens,
    )
    parse = partial(parsing.scores, num_pairs=len(request.pairs), errors=checked(errors))
    return Call(
        "/attendant.v1.TranslationService/Score", request, translation_pb2.ScoreResponse, parse
    )


def embed(
    texts: str | Sequence[str],
    *,
    errors: Errors = "raise",
    model: str = "",
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    truncation: Truncation = "refuse",
) -> Call[results.Embeddings]:
    """Build an Embed call."""
    request = embedding_pb2.EmbedRequest(
        model=model,
        texts=text_list(texts),
        pooling=chosen(POOLINGS, "pooling", pooling),
        normalize=normalize,
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    parse = partial(parsing.embeddings, num_texts=len(request.texts), errors=checked(errors))
    return Call("/attendant.v1.EmbeddingService/Embed", request, embedding_pb2.EmbedResponse, parse)


def embed_tokens(
    texts: str | Sequence[str],
    layers: Sequence[int] = (),
    *,
    model: str = "",
    role: Role | None = None,
    truncation: Truncation = "refuse",
    errors: Errors = "raise",
) -> Call[list[results.TokenEmbeddings]]:
    """Build an EmbedTokens call."""
    request = embedding_pb2.EmbedTokensRequest(
        model=model,
        texts=text_list(texts),
        layers=layers,
        role=chosen(ROLES, "role", role),
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    parse = partial(parsing.token_embeddings, num_texts=len(request.texts), errors=checked(errors))
    return Call(
        "/attendant.v1.EmbeddingService/EmbedTokens",
        request,
        embedding_pb2.EmbedTokensResponse,
        parse,
    )


def fill_mask(
    texts: str | Sequence[str],
    top_k: int = 5,
    *,
    model: str = "",
    truncation: Truncation = "refuse",
    errors: Errors = "raise",
) -> Call[list[results.FilledText]]:
    """Build a FillMask call."""
    request = embedding_pb2.FillMaskRequest(
        model=model,
        texts=text_list(texts),
        top_k=top_k,
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    parse = partial(parsing.filled_texts, num_texts=len(request.texts), errors=checked(errors))
    return Call(
        "/attendant.v1.EmbeddingService/FillMask", request, embedding_pb2.FillMaskResponse, parse
    )


def classify(
    texts: str | Sequence[str],
    text_pairs: str | Sequence[str] | None = None,
    *,
    top_k: int | None = None,
    raw_scores: bool = False,
    model: str = "",
    truncation: Truncation = "refuse",
    errors: Errors = "raise",
) -> Call[list[results.ClassifiedText]]:
    """Build a Classify call."""
    request = embedding_pb2.ClassifyRequest(
        model=model,
        texts=text_list(texts),
        text_pairs=None if text_pairs is None else text_list(text_pairs),
        top_k=top_k,
        raw_scores=raw_scores,
        truncation=chosen(TRUNCATIONS, "truncation", truncation),
    )
    parse = partial(parsing.classified_texts, num_texts=len(request.texts), errors=checked(errors))
    return Call(
        "/attendant.v1.EmbeddingService/Classify", request, embedding_pb2.ClassifyResponse, parse
    )


def tokenize(
    texts: str | Sequence[str],
    *,
    model: str = "",
    side: Side = "source",
    errors: Errors = "raise",
) -> Call[list[results.Tokenization]]:
    """Build a Tokenize call."""
    request = model_pb2.TokenizeRequest(
        model=model, texts=text_list(texts), side=chosen(SIDES, "side", side)
    )
    parse = partial(parsing.tokenizations, num_texts=len(request.texts), errors=checked(errors))
    return Call("/attendant.v1.ModelService/Tokenize", request, model_pb2.TokenizeResponse, parse)


def one_or_all(texts: str | Sequence[str], all_results: list[Result]) -> Result | list[Result]:
    """Return the only result if the texts were one string, else all of them."""
    return all_results[0] if isinstance(texts, str) else all_results


def vectors_of(
    texts: str | Sequence[str], errors: Errors, embeddings: results.Embeddings
) -> results.FloatArray | results.Embeddings:
    """Return the result of `embed`: an Embeddings if `errors` is "return", else vectors.

    The shape of the vectors is (texts, dimension), or (dimension,) if the texts were one string.
    """
    if errors == "return":
        return embeddings
    return embeddings.vectors[0] if isinstance(texts, str) else embeddings.vectors


def cosine(vectors: results.FloatArray) -> float:
    """Return the cosine of the angle between two vectors, shape (2, dimension).

    It is clipped to [-1, 1]; 0 if either vector is zero, NaN if one is not finite.
    """
    a, b = vectors.astype(np.float64)
    lengths = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / lengths, -1.0, 1.0)) if lengths else 0.0


def _search_options(
    *,
    beam_size: int | None = None,
    num_hypotheses: int | None = None,
    length_penalty: float | None = None,
    max_output_tokens: int | None = None,
    min_output_tokens: int | None = None,
    return_tokens: bool = False,
) -> translation_pb2.TranslateOptions:
    return translation_pb2.TranslateOptions(
        beam_size=beam_size,
        num_hypotheses=num_hypotheses,
        length_penalty=length_penalty,
        max_output_tokens=max_output_tokens,
        min_output_tokens=min_output_tokens,
        return_tokens=return_tokens,
    )


def text_list(texts: str | Sequence[str]) -> list[str]:
    """Return the texts as a list; one string is one text."""
    return [texts] if isinstance(texts, str) else list(texts)


def chosen(choices: dict[Any, Result], name: str, value: object) -> Result:
    """Return what an option stands for. Raises ValueError for an unknown value."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {list(choices)}, not {value!r}")
    return choices[value]


def checked(errors: Errors) -> Errors:
    """Return the treatment of errors. Raises ValueError for an unknown one."""
    if errors not in ERRORS:
        raise ValueError(f"errors must be one of {list(ERRORS)}, not {errors!r}")
    return errors
