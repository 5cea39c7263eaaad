"""Python client of the attendant server, and the `attendant` command."""

from attendant_client.asyncio_client import AsyncClient
from attendant_client.asyncio_streams import AsyncTranslationStream
from attendant_client.attention_results import Attention
from attendant_client.client import Client
from attendant_client.comparison_results import RankedDocument, SimilarTexts
from attendant_client.embedding_results import (
    Chunk,
    ClassifiedText,
    EmbeddedSpan,
    Embedding,
    Embeddings,
    FilledText,
    LabelScore,
    MaskCandidate,
    MaskFill,
    MaskFilling,
    SparseEmbedding,
    TokenEmbeddings,
)
from attendant_client.errors import (
    AttendantError,
    CallCancelledError,
    CallError,
    CallTooLargeError,
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ServerError,
    TextError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from attendant_client.model_results import (
    Limits,
    Model,
    ModelInfo,
    QualityFigure,
    RequestLimits,
)
from attendant_client.options import Sampling
from attendant_client.results import (
    CallReport,
    Hypothesis,
    OutputToken,
    Results,
    SentencePair,
    Token,
    Tokenization,
    Translation,
    TranslationScore,
    TruncationReport,
    WordAlignment,
)
from attendant_client.retries import RetryPolicy
from attendant_client.streams import TranslationStream

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncTranslationStream",
    "AttendantError",
    "Attention",
    "CallCancelledError",
    "CallError",
    "CallReport",
    "CallTooLargeError",
    "Chunk",
    "ClassifiedText",
    "Client",
    "DeadlineExceededError",
    "EmbeddedSpan",
    "Embedding",
    "Embeddings",
    "FilledText",
    "Hypothesis",
    "InvalidRequestError",
    "LabelScore",
    "Limits",
    "MaskCandidate",
    "MaskFill",
    "MaskFilling",
    "Model",
    "ModelInfo",
    "NotFoundError",
    "OutputToken",
    "OverloadedError",
    "PermissionDeniedError",
    "QualityFigure",
    "RankedDocument",
    "RequestLimits",
    "Results",
    "SentencePair",
    "WordAlignment",
    "RetryPolicy",
    "Sampling",
    "ServerError",
    "SimilarTexts",
    "SparseEmbedding",
    "TextError",
    "Token",
    "TokenEmbeddings",
    "Tokenization",
    "Translation",
    "TranslationScore",
    "TranslationStream",
    "TruncationReport",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
]
