"""Options of the clients' methods, as typed keyword arguments.

This module documents each option once; `messages` writes the options into requests.
"""

import os
from collections.abc import Callable
from typing import Literal, TypedDict

FilePath = str | os.PathLike[str]
Token = str | Callable[[], str]
Truncation = Literal["refuse", "right", "left"]
Pooling = Literal["mean", "cls", "max", "last", "weighted_mean", "mean_sqrt_length"]
Side = Literal["source", "target"]
Role = Literal["query", "document"]
Errors = Literal["raise", "return"]


class ConnectionOptions(TypedDict, total=False):
    """Options of a connection: TLS and authentication.

    `tls`: whether the connection has TLS; if absent, it has if the target begins with "grpcs://"
    or one of the files is given.
    `tls_ca`: PEM file of the authorities that may issue the server's certificate; if absent,
    those that gRPC brings along.
    `tls_cert`, `tls_key`: PEM files of the client's own certificate and key, for servers that ask
    for one.
    `token`: an API key or a JSON Web Token, or a function that returns the current one. It is
    called before each attempt of a call and must not block.
    `allow_plain_token`: send the token to another machine even without TLS.
    """

    tls: bool | None
    tls_ca: FilePath | None
    tls_cert: FilePath | None
    tls_key: FilePath | None
    token: Token | None
    allow_plain_token: bool


class SearchOptions(TypedDict, total=False):
    """Search options of a translation. An absent option takes the server's default.

    `beam_size`: hypotheses kept at every step, the model's default if absent, mostly 1 (greedy).
    `num_hypotheses`: hypotheses returned, at most `beam_size`; 1 if absent.
    `length_penalty`: scores are divided by the length to this power, 0 to 10; the model's
    default if absent, mostly 1.0.
    `max_output_tokens`: maximum number of tokens of a translation; if absent, 3 x the source
    tokens + 16, at most the model's limit.
    `min_output_tokens`: minimum number of tokens of a translation; the model's default if
    absent, mostly 0.
    `return_tokens`: whether hypotheses have their tokens with log-probabilities.
    """

    beam_size: int | None
    num_hypotheses: int | None
    length_penalty: float | None
    max_output_tokens: int | None
    min_output_tokens: int | None
    return_tokens: bool


class Languages(TypedDict, total=False):
    """The languages of a translation, as BCP 47 tags, such as "de".

    `source_language`, `target_language`: each may be left out if the model has only one. Without a
    model, they choose it among the server's models.
    """

    source_language: str
    target_language: str


class StreamOptions(SearchOptions, Languages, total=False):
    """Options of `stream_translate`: search, languages, model, and truncation.

    `model`: "name" or "name/version"; empty for the only one with these languages.
    `truncation`: "refuse" a text that is too long (default), or drop tokens at its end ("right")
    or its beginning ("left").
    """

    model: str
    truncation: Truncation


class TranslateOptions(StreamOptions, total=False):
    """Options of `translate`: those of `stream_translate`, and the treatment of errors of texts.

    `errors`: "raise" (default) raises the first text's TextError; "return" puts every error into
    the result of its text.
    """

    errors: Errors


class TextOptions(TypedDict, total=False):
    """Options of the calls that take texts: `model`, `truncation`, `errors` as for `translate`."""

    model: str
    truncation: Truncation
    errors: Errors


class TokenOptions(TextOptions, total=False):
    """Options of `embed_tokens`.

    `role`: "query" or "document", for vectors of late interaction as the package of the model gives
    them: with its marker, the expansion of queries, and without the tokens that documents skip.
    None reads a text as it is.
    `model`, `truncation`, `errors`: as for `translate`.
    """

    role: Role | None


class ClassifyOptions(TextOptions, total=False):
    """Options of `classify`.

    `top_k`: labels returned for each text; all if absent.
    `raw_scores`: whether scores are those of the head, before softmax or sigmoid.
    `model`, `truncation`, `errors`: as for `translate`.
    """

    top_k: int | None
    raw_scores: bool


class SparseOptions(TextOptions, total=False):
    """Options of `embed_sparse`.

    `max_active_dims`: tokens that a vector keeps, those with the greatest weights; the bundle's
    choice if absent, mostly all.
    `return_tokens`: whether results have the tokens in addition to their ids.
    `model`, `truncation`, `errors`: as for `translate`.
    """

    max_active_dims: int | None
    return_tokens: bool


class ScoreOptions(TextOptions, Languages, total=False):
    """Options of `score`: those of the calls that take texts, languages, and `return_tokens`.

    `return_tokens`: whether scores have the tokens of their targets with log-probabilities.
    """

    return_tokens: bool


class TokenizeOptions(TypedDict, total=False):
    """Options of `tokenize`.

    `side`: whether texts are read as a "source" (default) or as a "target" of a translation model.
    `model` and `errors`: as for `translate`.
    """

    model: str
    side: Side
    errors: Errors


class EmbedOptions(TypedDict, total=False):
    """Options of `embed`.

    `pooling`: "mean", "cls", "max", or one of the model's `additional_poolings`; the bundle's
    choice if absent.
    `normalize`: whether vectors are scaled to length 1; the bundle's choice if absent.
    `model` and `truncation`: as for `translate`.
    """

    model: str
    pooling: Pooling | None
    normalize: bool | None
    truncation: Truncation
