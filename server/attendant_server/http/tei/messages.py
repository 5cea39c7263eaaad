"""Requests and answers of Text Embeddings Inference, and its errors."""

from typing import Annotated, Any, Literal

import msgspec

from attendant_server import tei_requests
from attendant_server.http.json_routes import Dialect, Ids
from attendant_server.http.statuses import Failure, Malformed, Statuses

NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
Texts = NonEmpty | Annotated[list[NonEmpty | int | Ids], msgspec.Meta(min_length=1)]
"""A text, or a list of texts. Lists of token ids are refused."""
Direction = Literal["Left", "left", "Right", "right"]
NO_TOKENS = "must be a text or a list of texts, not token ids"
TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class TruncatedRequest(msgspec.Struct, kw_only=True):
    """A request that may ask for truncation."""

    truncate: bool | None = False
    truncation_direction: Direction = "Right"

    @property
    def truncation(self) -> int:
        """The number of a `Truncation`."""
        return tei_requests.truncation(
            bool(self.truncate), self.truncation_direction.lower() == "left"
        )


class EmbedRequest(TruncatedRequest, kw_only=True):
    """Texts to embed."""

    inputs: Texts
    normalize: bool = True
    prompt_name: str | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None


class EmbedAllRequest(TruncatedRequest, kw_only=True):
    """Texts whose tokens are embedded."""

    inputs: Texts
    prompt_name: None = None
    """Not supported here."""


class OneOrTwo(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One or two texts."""

    first: NonEmpty
    second: NonEmpty | msgspec.UnsetType = msgspec.UNSET


class PredictRequest(TruncatedRequest, kw_only=True):
    """A text, a pair of texts, or a list of lists of one or two texts."""

    inputs: NonEmpty | Annotated[list[NonEmpty | OneOrTwo], msgspec.Meta(min_length=1)]
    raw_scores: bool = False


class RerankRequest(TruncatedRequest, kw_only=True):
    """Texts to order by their scores for a query."""

    query: NonEmpty
    texts: Annotated[list[NonEmpty], msgspec.Meta(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """Texts to tokenize."""

    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: None = None
    """Not supported here."""


class DecodeRequest(msgspec.Struct, kw_only=True):
    """Token ids, or lists of token ids, to decode."""

    ids: Annotated[list[TokenId | list[TokenId]], msgspec.Meta(min_length=1)]
    skip_special_tokens: bool = True


class SparseValue(msgspec.Struct):
    """The weight of one token of the vocabulary."""

    index: int
    value: float


class Prediction(msgspec.Struct):
    """The score of one label."""

    score: float
    label: str


class Rank(msgspec.Struct, omit_defaults=True):
    """The score of one text."""

    index: int
    score: float
    text: str | None = None


class Token(msgspec.Struct):
    """A token, with its place in the text in bytes of UTF-8, unless it is special."""

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


class Info(msgspec.Struct, kw_only=True):
    """The model that calls without another name get, and the limits of the server."""

    model_id: str
    model_sha: str | None = None
    model_dtype: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int
    auto_truncate: bool = False
    tokenization_workers: int
    version: str
    sha: str | None = None
    docker_label: str | None = None


class Error(msgspec.Struct):
    """The answer of a call that has failed."""

    error: str
    error_type: str
    """``validation``, ``overloaded``, ``unhealthy``, ``backend``, or the name of a code of gRPC."""


ERROR_TYPES = {
    "INVALID_ARGUMENT": "validation",
    "RESOURCE_EXHAUSTED": "overloaded",
    "UNAVAILABLE": "unhealthy",
    "FAILED_PRECONDITION": "backend",
    "INTERNAL": "backend",
}
STATUSES: Statuses = {
    Malformed: 422,
    "INVALID_ARGUMENT": 413,
    "FAILED_PRECONDITION": 424,
    "INTERNAL": 424,
}
"""The statuses that TEI has for these errors."""


def error_of(failure: Failure) -> Any:
    """The answer of a call that has failed."""
    return Error(failure.message, ERROR_TYPES.get(failure.code, failure.code.lower()))


TEI_DIALECT = Dialect("tei", Error, error_of, STATUSES)
