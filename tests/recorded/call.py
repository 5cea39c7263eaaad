"""A recorded call: its name, method and request. Depends on the contract, not on servers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from attendant.v1 import (
    attention_pb2,
    embedding_pb2,
    language_model_pb2,
    language_pb2,
    model_pb2,
    text_pb2,
    translation_pb2,
)
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

REQUEST_ID = "x-request-id"
_FILES: Sequence[Any] = (
    translation_pb2,
    embedding_pb2,
    language_pb2,
    language_model_pb2,
    model_pb2,
    health_pb2,
    reflection_pb2,
)

METHODS: dict[str, Any] = {
    f"{service.full_name}/{method.name}": method
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Descriptors of all methods of a server, by ``<service>/<method>``."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose answer is recorded under ``name``."""

    name: str
    method: str
    """``<service>/<method>``. The method need not exist."""
    request: Message | bytes
    metadata: tuple[tuple[str, str], ...] = ((REQUEST_ID, "recorded"),)
    max_messages: int | None = None
    """Number of messages of an endless stream before the call is cancelled."""
    further: tuple[Message, ...] = ()
    """The further requests of a stream."""

    @property
    def contents(self) -> list[bytes]:
        """The bytes of each request."""
        return [
            each if isinstance(each, bytes) else each.SerializeToString(deterministic=True)
            for each in (self.request, *self.further)
        ]


def translate(name: str, texts: Iterable[str], model: str = "", **fields: Any) -> Call:
    """A Translate call; ``fields`` are those of the request or of its options.

    It asks for tokens unless ``fields`` say otherwise, so that they are recorded.
    """
    request = translation_pb2.TranslateRequest(model=model, texts=texts, **_with_options(fields))
    return Call(f"Translate: {name}", "attendant.v1.TranslationService/Translate", request)


def stream(name: str, text: str, model: str = "", **fields: Any) -> Call:
    """A StreamTranslate call; ``fields`` as for `translate`."""
    request = translation_pb2.StreamTranslateRequest(
        model=model, text=text, **_with_options(fields)
    )
    method = "attendant.v1.TranslationService/StreamTranslate"
    return Call(f"StreamTranslate: {name}", method, request)


def bulk_translate(
    name: str, pairs: Iterable[tuple[str, str]], model: str = "", **fields: Any
) -> Call:
    """A BulkTranslate call for pairs of id and text; ``fields`` as for `translate`.

    Only one of the texts may be good, because the last bits depend on the batch. The first text has
    a message of its own, the others come together.
    """
    settings = translation_pb2.TranslateRequest(model=model, **_with_options(fields))
    return Call(
        f"BulkTranslate: {name}",
        "attendant.v1.TranslationService/BulkTranslate",
        translation_pb2.BulkTranslateRequest(settings=settings),
        further=tuple(
            translation_pb2.BulkTranslateRequest(texts=texts) for texts in _bulk_texts(pairs)
        ),
    )


def score(name: str, pairs: Iterable[tuple[str, str]], model: str = "", **fields: Any) -> Call:
    """A Score call for (source, target) pairs; asks for tokens like `translate`."""
    messages = [translation_pb2.TranslationPair(source=s, target=t) for s, t in pairs]
    request = translation_pb2.ScoreRequest(
        model=model, pairs=messages, **({"return_tokens": True} | fields)
    )
    return Call(f"Score: {name}", "attendant.v1.TranslationService/Score", request)


def embed(name: str, texts: Iterable[str], model: str = "", **fields: Any) -> Call:
    """An Embed call."""
    request = embedding_pb2.EmbedRequest(model=model, texts=texts, **fields)
    return Call(f"Embed: {name}", "attendant.v1.EmbeddingService/Embed", request)


def bulk_embed(name: str, pairs: Iterable[tuple[str, str]], model: str = "", **fields: Any) -> Call:
    """A BulkEmbed call for pairs of id and text, in messages as for `bulk_translate`."""
    settings = embedding_pb2.EmbedRequest(model=model, **fields)
    return Call(
        f"BulkEmbed: {name}",
        "attendant.v1.EmbeddingService/BulkEmbed",
        embedding_pb2.BulkEmbedRequest(settings=settings),
        further=tuple(embedding_pb2.BulkEmbedRequest(texts=texts) for texts in _bulk_texts(pairs)),
    )


def _bulk_texts(pairs: Iterable[tuple[str, str]]) -> list[list[text_pb2.BulkText]]:
    """The texts of each message."""
    texts = [text_pb2.BulkText(id=text_id, text=text) for text_id, text in pairs]
    return [each for each in (texts[:1], texts[1:]) if each]


def embed_tokens(name: str, texts: Iterable[str], model: str = "", **fields: Any) -> Call:
    """An EmbedTokens call."""
    request = embedding_pb2.EmbedTokensRequest(model=model, texts=texts, **fields)
    return Call(f"EmbedTokens: {name}", "attendant.v1.EmbeddingService/EmbedTokens", request)


def fill_mask(name: str, texts: Iterable[str], model: str = "", **fields: Any) -> Call:
    """A FillMask call."""
    request = embedding_pb2.FillMaskRequest(model=model, texts=texts, **fields)
    return Call(f"FillMask: {name}", "attendant.v1.EmbeddingService/FillMask", request)


def classify(name: str, texts: Iterable[str], model: str = "", **fields: Any) -> Call:
    """A Classify call."""
    request = embedding_pb2.ClassifyRequest(model=model, texts=texts, **fields)
    return Call(f"Classify: {name}", "attendant.v1.EmbeddingService/Classify", request)


def embed_sparse(name: str, texts: Iterable[str], model: str = "", **fields: Any) -> Call:
    """An EmbedSparse call."""
    request = embedding_pb2.EmbedSparseRequest(model=model, texts=texts, **fields)
    return Call(f"EmbedSparse: {name}", "attendant.v1.EmbeddingService/EmbedSparse", request)


def similarity(
    name: str, queries: Iterable[str], texts: Iterable[str], model: str = "", **fields: Any
) -> Call:
    """A Similarity call."""
    request = embedding_pb2.SimilarityRequest(model=model, queries=queries, texts=texts, **fields)
    return Call(f"Similarity: {name}", "attendant.v1.EmbeddingService/Similarity", request)


def rerank(name: str, query: str, documents: Iterable[str], model: str = "", **fields: Any) -> Call:
    """A Rerank call."""
    request = embedding_pb2.RerankRequest(model=model, query=query, documents=documents, **fields)
    return Call(f"Rerank: {name}", "attendant.v1.EmbeddingService/Rerank", request)


def generate(name: str, prompts: Iterable[str], model: str = "", **fields: Any) -> Call:
    """A Generate call; ``fields`` are those of the request or of its options."""
    request = language_model_pb2.GenerateRequest(
        model=model, prompts=prompts, **_with_options(fields, language_model_pb2.GenerateOptions)
    )
    return Call(f"Generate: {name}", "attendant.v1.LanguageModelService/Generate", request)


def stream_generate(name: str, prompt: str, model: str = "", **fields: Any) -> Call:
    """A StreamGenerate call; ``fields`` as for `generate`."""
    request = language_model_pb2.StreamGenerateRequest(
        model=model, prompt=prompt, **_with_options(fields, language_model_pb2.GenerateOptions)
    )
    method = "attendant.v1.LanguageModelService/StreamGenerate"
    return Call(f"StreamGenerate: {name}", method, request)


def score_texts(name: str, texts: Iterable[str], model: str = "", **fields: Any) -> Call:
    """A ScoreText call."""
    request = language_model_pb2.ScoreTextRequest(model=model, texts=texts, **fields)
    return Call(f"ScoreText: {name}", "attendant.v1.LanguageModelService/ScoreText", request)


def detect_language(name: str, texts: Iterable[str], **fields: Any) -> Call:
    """A DetectLanguage call."""
    request = language_pb2.DetectLanguageRequest(texts=texts, **fields)
    return Call(f"DetectLanguage: {name}", "attendant.v1.LanguageService/DetectLanguage", request)


def list_models() -> Call:
    """The ListModels call."""
    method = "attendant.v1.ModelService/ListModels"
    return Call("ListModels", method, model_pb2.ListModelsRequest())


def get_model(name: str, model: str) -> Call:
    """A GetModel call."""
    request = model_pb2.GetModelRequest(model=model)
    return Call(f"GetModel: {name}", "attendant.v1.ModelService/GetModel", request)


def tokenize(name: str, texts: Iterable[str], model: str = "", **fields: Any) -> Call:
    """A Tokenize call."""
    request = model_pb2.TokenizeRequest(model=model, texts=texts, **fields)
    return Call(f"Tokenize: {name}", "attendant.v1.ModelService/Tokenize", request)


def get_attention(name: str, text: str, model: str = "", **fields: Any) -> Call:
    """A GetAttention call."""
    request = attention_pb2.GetAttentionRequest(model=model, text=text, **fields)
    return Call(f"GetAttention: {name}", "attendant.v1.ModelService/GetAttention", request)


def _with_options(
    fields: dict[str, Any], options_type: Any = translation_pb2.TranslateOptions
) -> dict[str, Any]:
    """The fields of a request, with those of its options moved into their own message."""
    names = options_type.DESCRIPTOR.fields_by_name
    options = {name: value for name, value in fields.items() if name in names}
    others = {name: value for name, value in fields.items() if name not in names}
    others["options"] = options_type(**({"return_tokens": True} | options))
    return others
