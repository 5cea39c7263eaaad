"""Embeddings, classification and reranking as tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attendant.v1 import embedding_pb2

from attendant_server.application.application import Application
from attendant_server.application.data_types import DataType
from attendant_server.application.descriptions import ModelDescription, ModelKind
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.kserve.tasks import TEXT, Task, TaskResult, TensorSpec
from attendant_server.grpc.kserve.tensors import FP16, FP32, INT8, INT32, UINT8, OutputTensor
from attendant_server.grpc.services.embedding_requests import (
    classification_request,
    embedding_request,
    reranking_request,
    sparse_embedding_request,
)
from attendant_server.text_faults import without_faults

TEXT_PAIR, QUERY = "TEXT_PAIR", "QUERY"
EMBEDDING, SCALE, LABEL, SCORE = "EMBEDDING", "SCALE", "LABEL", "SCORE"
TOKEN_ID, WEIGHT = "TOKEN_ID", "WEIGHT"
DATATYPES = {
    DataType.FLOAT32: FP32,
    DataType.FLOAT16: FP16,
    DataType.INT8: INT8,
    DataType.UINT8: UINT8,
    DataType.BINARY: UINT8,
}


class EmbedTask(Task):
    """One vector for each text."""

    operation, message = "Embed", embedding_pb2.EmbedRequest
    hidden = ("model", "texts", "offset_unit")

    def inputs(self) -> Sequence[TensorSpec]:
        """Texts."""
        return [TensorSpec(TEXT)]

    def outputs(self, model: ModelDescription) -> Sequence[TensorSpec]:
        """Vectors; also their scales, for number formats that have them."""
        width = model.default_dimensions or model.text_dimension
        return [TensorSpec(EMBEDDING, FP32, width), TensorSpec(SCALE, FP32, is_optional=True)]

    def fits(self, model: ModelDescription) -> bool:
        """Whether it is an embedding model."""
        return model.kind is ModelKind.EMBEDDING

    async def run(
        self,
        application: Application,
        message: embedding_pb2.EmbedRequest,
        texts: Mapping[str, Sequence[str]],
        seconds_left: float | None,
    ) -> TaskResult:
        """Embed all texts."""
        if message.chunking and not message.average_chunks:
            raise InvalidRequest("chunking", "needs average_chunks, for one vector of each text")
        message.texts.extend(texts[TEXT])
        answer = await application.embedder.embed(embedding_request(message), seconds_left)
        without_faults(answer.texts)
        vectors = answer.vectors
        outputs = {
            EMBEDDING: OutputTensor(
                vectors.numbers.ravel(),
                num_columns=vectors.numbers.shape[-1],
                datatype=DATATYPES[vectors.data_type],
            )
        }
        if vectors.scales is not None:
            outputs[SCALE] = OutputTensor(vectors.scales.ravel(), is_scalar=True, datatype=FP32)
        return _result(answer, outputs, answer.texts)


class SparseTask(Task):
    """One sparse vector for each text: tokens by ascending ids, and zeros after the last one."""

    operation, message = "EmbedSparse", embedding_pb2.EmbedSparseRequest
    hidden = ("model", "texts", "return_tokens")

    def inputs(self) -> Sequence[TensorSpec]:
        """Texts."""
        return [TensorSpec(TEXT)]

    def outputs(self, model: ModelDescription) -> Sequence[TensorSpec]:
        """Tokens and their weights."""
        return [TensorSpec(TOKEN_ID, INT32, -1), TensorSpec(WEIGHT, FP32, -1)]

    def fits(self, model: ModelDescription) -> bool:
        """Whether it has sparse vectors."""
        return bool(model.sparse_dimension)

    async def run(
        self,
        application: Application,
        message: embedding_pb2.EmbedSparseRequest,
        texts: Mapping[str, Sequence[str]],
        seconds_left: float | None,
    ) -> TaskResult:
        """Embed all texts."""
        message.texts.extend(texts[TEXT])
        request = sparse_embedding_request(message)
        answer = await application.sparse_embedder.embed(request, seconds_left)
        vectors = without_faults(answer.texts)
        num_columns = max(1, *(len(vector.weights) for vector in vectors))
        # Padding can be many times the tokens of the texts.
        num_bytes = 8 * num_columns * len(vectors)
        application.models.limits.check_response("texts", num_bytes)
        ids = np.zeros((len(vectors), num_columns), np.int32)
        weights = np.zeros((len(vectors), num_columns), np.float32)
        for row, vector in enumerate(vectors):
            ids[row, : len(vector.weights)] = vector.token_ids
            weights[row, : len(vector.weights)] = vector.weights
        outputs = {
            TOKEN_ID: OutputTensor(ids.ravel(), num_columns, datatype=INT32),
            WEIGHT: OutputTensor(weights.ravel(), num_columns, datatype=FP32),
        }
        return _result(answer, outputs, answer.texts)


class ClassifyTask(Task):
    """The labels of each text or pair, best first."""

    operation, message = "Classify", embedding_pb2.ClassifyRequest
    hidden = ("model", "texts", "text_pairs")
    tensor_fields = {"texts": TEXT, "text_pairs": TEXT_PAIR}

    def inputs(self) -> Sequence[TensorSpec]:
        """Texts, or the first and the second texts of pairs."""
        return [TensorSpec(TEXT), TensorSpec(TEXT_PAIR, is_optional=True)]

    def outputs(self, model: ModelDescription) -> Sequence[TensorSpec]:
        """Labels and their scores."""
        num_labels = len(model.labels)
        return [TensorSpec(LABEL, num_columns=num_labels), TensorSpec(SCORE, FP32, num_labels)]

    def fits(self, model: ModelDescription) -> bool:
        """Whether it has a head for labels."""
        return bool(model.labels)

    async def run(
        self,
        application: Application,
        message: embedding_pb2.ClassifyRequest,
        texts: Mapping[str, Sequence[str]],
        seconds_left: float | None,
    ) -> TaskResult:
        """Classify all texts or pairs."""
        message.texts.extend(texts[TEXT])
        message.text_pairs.extend(texts.get(TEXT_PAIR, ()))
        request = classification_request(message)
        answer = await application.classifier.classify(request, seconds_left)
        found = without_faults(answer.texts)
        num_columns = len(found[0].labels)
        scores = np.array([text.scores for text in found], np.float32).ravel()
        outputs = {
            LABEL: OutputTensor([label for text in found for label in text.labels], num_columns),
            SCORE: OutputTensor(scores, num_columns, datatype=FP32),
        }
        return _result(answer, outputs, answer.texts)


class RerankTask(Task):
    """The score of each text for one query, in the order of the texts."""

    operation, message = "Rerank", embedding_pb2.RerankRequest
    hidden = ("model", "query", "documents", "top_k")
    tensor_fields = {"documents": TEXT, "query": QUERY}

    def inputs(self) -> Sequence[TensorSpec]:
        """Texts, and one query."""
        return [TensorSpec(TEXT), TensorSpec(QUERY)]

    def outputs(self, model: ModelDescription) -> Sequence[TensorSpec]:
        """Scores."""
        return [TensorSpec(SCORE, FP32)]

    def fits(self, model: ModelDescription) -> bool:
        """Whether it has a head with one label."""
        return len(model.labels) == 1

    async def run(
        self,
        application: Application,
        message: embedding_pb2.RerankRequest,
        texts: Mapping[str, Sequence[str]],
        seconds_left: float | None,
    ) -> TaskResult:
        """Score all texts."""
        if len(texts[QUERY]) != 1:
            raise InvalidRequest(QUERY, f"must have one element, got {len(texts[QUERY])}")
        message.query = texts[QUERY][0]
        message.documents.extend(texts[TEXT])
        answer = await application.reranker.rerank(reranking_request(message), seconds_left)
        for _, fault in answer.faults:
            raise fault
        scores = np.zeros(len(answer.documents), np.float32)
        for document in answer.documents:
            scores[document.index] = document.score
        outputs = {SCORE: OutputTensor(scores, is_scalar=True, datatype=FP32)}
        return _result(answer, outputs, answer.documents)


def _result(answer: Any, outputs: dict[str, OutputTensor], results: Sequence[Any]) -> TaskResult:
    parameters = {"num_input_tokens": answer.num_input_tokens}
    if num_truncated := sum(result.truncation is not None for result in results):
        parameters["num_truncated_texts"] = num_truncated
    return TaskResult(answer.model, outputs, parameters, answer.size)
