"""The requests to embedding models that several front doors make, from messages."""

from attendant.v1 import embedding_pb2

from attendant_server.application.chunking import ChunkOptions
from attendant_server.application.classification import ClassificationRequest
from attendant_server.application.embedding import EmbeddingRequest
from attendant_server.application.prompts import PromptChoice
from attendant_server.application.reranking import RerankingRequest
from attendant_server.application.sparse_embedding import SparseEmbeddingRequest
from attendant_server.grpc.services.messages import given


def embedding_request(request: embedding_pb2.EmbedRequest) -> EmbeddingRequest:
    """The request to embed the texts of a message."""
    return EmbeddingRequest(
        texts=list(request.texts),
        model=request.model,
        pooling=request.pooling,
        normalize=given(request, "normalize"),
        truncation=request.truncation,
        text_normalization=request.text_normalization,
        dimensions=given(request, "dimensions"),
        force_dimensions=request.force_dimensions,
        data_type=request.data_type,
        chunks=ChunkOptions(
            request.chunking, given(request, "max_chunk_tokens"), request.average_chunks
        ),
        prompt=PromptChoice(given(request, "prompt_name"), given(request, "prompt")),
    )


def classification_request(request: embedding_pb2.ClassifyRequest) -> ClassificationRequest:
    """The request to classify the texts or pairs of a message."""
    return ClassificationRequest(
        texts=list(request.texts),
        text_pairs=list(request.text_pairs),
        model=request.model,
        top_k=given(request, "top_k"),
        raw_scores=request.raw_scores,
        truncation=request.truncation,
        text_normalization=request.text_normalization,
    )


def sparse_embedding_request(request: embedding_pb2.EmbedSparseRequest) -> SparseEmbeddingRequest:
    """The request to embed the texts sparsely of a message."""
    return SparseEmbeddingRequest(
        texts=list(request.texts),
        model=request.model,
        max_active_dims=given(request, "max_active_dims"),
        return_tokens=request.return_tokens,
        truncation=request.truncation,
        text_normalization=request.text_normalization,
    )


def reranking_request(request: embedding_pb2.RerankRequest) -> RerankingRequest:
    """The request to score the documents of a message."""
    return RerankingRequest(
        query=request.query,
        documents=list(request.documents),
        model=request.model,
        top_k=given(request, "top_k"),
        raw_scores=request.raw_scores,
        truncation=request.truncation,
        text_normalization=request.text_normalization,
    )
