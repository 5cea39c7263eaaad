"""Python client of the attendant server, and the `attendant` command."""

from attendant_client.asyncio_bulk_results import AsyncBulkResults
from attendant_client.asyncio_client import AsyncClient
from attendant_client.asyncio_streams import AsyncGenerationStream, AsyncTranslationStream
from attendant_client.attention_results import Attention
from attendant_client.bulk_results import BulkResults
from attendant_client.client import Client
from attendant_client.comparison_results import RankedDocument, SimilarTexts
from attendant_client.detection_results import DetectedLanguages, LanguageProbability
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
from attendant_client.generation_results import GeneratedText, Generation, TextScore
from attendant_client.model_results import (
    Control,
    Limits,
    Model,
    ModelInfo,
    QualityFigure,
    RequestLimits,
)
from attendant_client.options import Sampling
from attendant_client.results import (
    CallReport,
    GlossaryTerm,
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
from attendant_client.streams import GenerationStream, TranslationStream

__version__ = "0.1.0"

__all__ = [
    "AsyncBulkResults",
    "AsyncClient",
    "AsyncGenerationStream",
    "AsyncTranslationStream",
    "AttendantError",
    "Attention",
    "BulkResults",
    "CallCancelledError",
    "CallError",
    "CallReport",
    "CallTooLargeError",
    "Chunk",
    "ClassifiedText",
    "Client",
    "Control",
    "DeadlineExceededError",
    "DetectedLanguages",
    "EmbeddedSpan",
    "Embedding",
    "Embeddings",
    "FilledText",
    "GeneratedText",
    "Generation",
    "GenerationStream",
    "GlossaryTerm",
    "Hypothesis",
    "InvalidRequestError",
    "LabelScore",
    "LanguageProbability",
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
    "TextScore",
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
