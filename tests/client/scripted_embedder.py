"""The embedding service of the scripted server: vectors of letters, without models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from attendant.v1 import embedding_pb2, embedding_pb2_grpc
from google.rpc import code_pb2, status_pb2

from tests.client.script import EMPTY, Script, error_of, tokens_of


def tensor_of(values: Any) -> embedding_pb2.Tensor:
    array = np.asarray(values, dtype="<f4")
    return embedding_pb2.Tensor(
        data=array.tobytes(), shape=array.shape, dtype=embedding_pb2.DATA_TYPE_FLOAT32
    )


def vector_of(text: str) -> list[float]:
    """One component for the length and one for each of two letters."""
    return [float(len(text)), float(text.count("a")), float(text.count("b"))]


def cosine_of(*texts: str) -> float:
    a, b = (np.array(vector_of(text)) for text in texts)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def embed_response(texts: Sequence[str]) -> embedding_pb2.EmbedResponse:
    results = [
        embedding_pb2.EmbedResult(error=error)
        if (error := error_of(text))
        else embedding_pb2.EmbedResult(num_tokens=len(tokens_of(text)))
        for text in texts
    ]
    vectors = [vector_of(text) if text.strip() else [0.0] * 3 for text in texts]
    return embedding_pb2.EmbedResponse(
        embeddings=tensor_of(vectors), results=results, model="vectors/1"
    )


class Embedder(embedding_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def Embed(self, request, context):
        return self._script.answer(request, embed_response(request.texts), context)

    def BulkEmbed(self, requests, context):
        self._script.requests.append(next(requests))
        context.send_initial_metadata(())
        for request in requests:
            for texts in self._script.answered_together(request.texts, context):
                response = embedding_pb2.BulkEmbedResponse(
                    ids=[each.id for each in texts],
                    answer=embed_response([each.text for each in texts]),
                )
                yield self._script.answer(
                    embedding_pb2.BulkEmbedRequest(texts=texts), response, context
                )

    def EmbedTokens(self, request, context):
        results = []
        for text in request.texts:
            tokens = tokens_of(text)
            vectors = np.array([vector_of(token.text) for token in tokens])
            if len(request.layers) > 1:
                vectors = np.stack([vectors + layer for layer in request.layers])
            results.append(
                embedding_pb2.EmbedTokensResult(error=EMPTY)
                if not text.strip()
                else embedding_pb2.EmbedTokensResult(tokens=tokens, embeddings=tensor_of(vectors))
            )
        response = embedding_pb2.EmbedTokensResponse(results=results, model="vectors/1")
        return self._script.answer(request, response, context)

    def FillMask(self, request, context):
        results = [
            embedding_pb2.FillMaskResult(
                masks=[
                    embedding_pb2.FilledMask(
                        start=start,
                        end=start + len("[MASK]"),
                        candidates=[
                            embedding_pb2.MaskCandidate(id=i, text=f"word{i}", probability=0.5**i)
                            for i in range(1, (request.top_k or 5) + 1)
                        ],
                    )
                    for start in range(len(text))
                    if text.startswith("[MASK]", start)
                ]
            )
            if "[MASK]" in text
            else embedding_pb2.FillMaskResult(
                error=status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="no [MASK]")
            )
            for text in request.texts
        ]
        response = embedding_pb2.FillMaskResponse(results=results, model="vectors/1")
        return self._script.answer(request, response, context)

    def Classify(self, request, context):
        """Scores the letters "a" and "b" of a text, and of the second text of a pair."""
        seconds = request.text_pairs or [""] * len(request.texts)
        results = [
            embedding_pb2.ClassifyResult(
                labels=[
                    embedding_pb2.LabelScore(label=letter, score=(text + second).count(letter))
                    for letter in "ab"[: request.top_k or 2]
                ]
            )
            if text.strip()
            else embedding_pb2.ClassifyResult(error=EMPTY)
            for text, second in zip(request.texts, seconds, strict=True)
        ]
        response = embedding_pb2.ClassifyResponse(results=results, model="vectors/1")
        return self._script.answer(request, response, context)

    def EmbedSparse(self, request, context):
        """Weighs the letters "a" (token 0) to "c" of a text by their number."""
        results = []
        for text in request.texts:
            counts = {i: text.count(letter) for i, letter in enumerate("abc")}
            ids = [i for i in counts if counts[i]][: request.max_active_dims or 3]
            result = embedding_pb2.EmbedSparseResult(
                token_ids=ids,
                weights=[counts[i] for i in ids],
                tokens=["abc"[i] for i in ids if request.return_tokens],
                num_tokens=len(text),
            )
            failed = embedding_pb2.EmbedSparseResult(error=EMPTY)
            results.append(result if text.strip() else failed)
        response = embedding_pb2.EmbedSparseResponse(results=results, model="vectors/1")
        return self._script.answer(request, response, context)

    def Similarity(self, request, context):
        """Compares the vectors of letters."""
        texts = [each for each in enumerate(request.texts) if each[1].strip()]
        results = []
        for query in request.queries:
            scores = {i: cosine_of(query, text) for i, text in texts if query.strip()}
            best = sorted(scores, key=lambda i: -scores[i])[: request.top_k or None]
            result = embedding_pb2.SimilarityResult(indices=best, scores=[scores[i] for i in best])
            failed = embedding_pb2.SimilarityResult(error=EMPTY)
            results.append(result if query.strip() else failed)
        response = embedding_pb2.SimilarityResponse(
            results=results,
            texts=[
                embedding_pb2.EmbedResult(error=None if text.strip() else EMPTY)
                for text in request.texts
            ],
            model="vectors/1",
        )
        return self._script.answer(request, response, context)

    def Rerank(self, request, context):
        """Counts the query in each document."""
        results = [
            embedding_pb2.RerankResult(index=i, score=text.count(request.query))
            if text.strip()
            else embedding_pb2.RerankResult(index=i, error=EMPTY)
            for i, text in enumerate(request.documents)
        ]
        results.sort(key=lambda result: (result.HasField("error"), -result.score))
        response = embedding_pb2.RerankResponse(results=results, model="vectors/1")
        return self._script.answer(request, response, context)
