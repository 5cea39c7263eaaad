"""The services Predict and Rerank of TEI: labels of texts and pairs, and scores for a query."""

from collections.abc import AsyncIterator, Sequence
from functools import partial

from attendant_vendored.tei import tei_pb2, tei_pb2_grpc

from attendant_server.application.application import Application
from attendant_server.application.classification import ClassificationRequest
from attendant_server.application.held_memory import current_hold
from attendant_server.application.reranking import RerankingRequest
from attendant_server.errors import CallTooLarge, InvalidRequest
from attendant_server.field_names import renamed_fields
from attendant_server.grpc.context import Context
from attendant_server.grpc.tei.messages import (
    answer_stream,
    chosen_model,
    figures,
    truncation,
)
from attendant_server.tei_requests import INPUTS, checked_pair
from attendant_server.text_faults import without_faults

COMMON_FIELDS = ("query", "truncate", "truncation_direction")
"""Fields of a stream of RerankStream that must be the same in all requests."""


class PredictService(tei_pb2_grpc.PredictServicer):
    """Answers for all models with a classification head."""

    def __init__(self, application: Application) -> None:
        self._application, self._classifier = application, application.classifier

    async def Predict(
        self, request: tei_pb2.PredictRequest, context: Context
    ) -> tei_pb2.PredictResponse:
        """The labels of a text."""
        return await self._predict(chosen_model(context), request, context.time_remaining())

    async def PredictStream(  # type: ignore[override]  # grpc.aio also takes a coroutine that writes
        self, requests: AsyncIterator[tei_pb2.PredictRequest], context: Context
    ) -> None:
        """The labels of the text of each request."""
        answer = partial(self._predict, chosen_model(context))
        await answer_stream(self._application, requests, context, answer)

    async def PredictPair(
        self, request: tei_pb2.PredictPairRequest, context: Context
    ) -> tei_pb2.PredictResponse:
        """The labels of a pair of texts."""
        return await self._predict_pair(chosen_model(context), request, context.time_remaining())

    async def PredictPairStream(  # type: ignore[override]
        self, requests: AsyncIterator[tei_pb2.PredictPairRequest], context: Context
    ) -> None:
        """The labels of the pair of each request."""
        answer = partial(self._predict_pair, chosen_model(context))
        await answer_stream(self._application, requests, context, answer)

    async def _predict(
        self, model: str, request: tei_pb2.PredictRequest, seconds_left: float | None
    ) -> tei_pb2.PredictResponse:
        return await self._classify(model, request, [request.inputs], seconds_left)

    async def _predict_pair(
        self, model: str, request: tei_pb2.PredictPairRequest, seconds_left: float | None
    ) -> tei_pb2.PredictResponse:
        return await self._classify(model, request, checked_pair(request.inputs), seconds_left)

    async def _classify(
        self,
        model: str,
        request: tei_pb2.PredictRequest | tei_pb2.PredictPairRequest,
        texts: Sequence[str],
        seconds_left: float | None,
    ) -> tei_pb2.PredictResponse:
        with renamed_fields(INPUTS):
            answer = await self._classifier.classify(
                ClassificationRequest(
                    texts=texts[:1],
                    text_pairs=texts[1:],
                    model=model,
                    raw_scores=request.raw_scores,
                    truncation=truncation(request),
                ),
                seconds_left,
            )
            [found] = without_faults(answer.texts)
        return tei_pb2.PredictResponse(
            predictions=[
                tei_pb2.Prediction(label=label, score=score)
                for label, score in zip(found.labels, found.scores, strict=True)
            ],
            metadata=figures(answer, sum(map(len, texts))),
        )


class RerankService(tei_pb2_grpc.RerankServicer):
    """Answers for all models with a head of one label."""

    def __init__(self, application: Application) -> None:
        self._reranker, self._limits = application.reranker, application.models.limits
        self._jobs = application.jobs

    async def Rerank(
        self, request: tei_pb2.RerankRequest, context: Context
    ) -> tei_pb2.RerankResponse:
        """The texts in the order of their scores."""
        with renamed_fields({"documents": "texts"}):
            answer = await self._reranker.rerank(
                RerankingRequest(
                    query=request.query,
                    documents=list(request.texts),
                    model=chosen_model(context),
                    raw_scores=request.raw_scores,
                    truncation=truncation(request),
                ),
                context.time_remaining(),
            )
            for _, fault in answer.faults:
                raise fault
        num_characters = len(request.query) * len(request.texts) + sum(map(len, request.texts))
        metadata = figures(answer, num_characters)

        def response() -> tei_pb2.RerankResponse:
            return tei_pb2.RerankResponse(
                ranks=[
                    tei_pb2.Rank(
                        index=each.index,
                        score=each.score,
                        text=request.texts[each.index] if request.return_text else None,
                    )
                    for each in answer.documents
                ],
                metadata=metadata,
            )

        return await self._jobs.run_for(answer.size, response)

    async def RerankStream(
        self, requests: AsyncIterator[tei_pb2.RerankStreamRequest], context: Context
    ) -> tei_pb2.RerankResponse:
        """The texts of all requests in the order of their scores, once the last one has come."""
        return await self.Rerank(await self._joined(requests), context)

    async def _joined(
        self, requests: AsyncIterator[tei_pb2.RerankStreamRequest]
    ) -> tei_pb2.RerankRequest:
        """One request with all texts; raises InvalidRequest, CallTooLarge or QueueFull."""
        joined: tei_pb2.RerankRequest | None = None
        async for request in requests:
            if joined is None:
                joined = tei_pb2.RerankRequest(
                    query=request.query,
                    truncate=request.truncate,
                    truncation_direction=request.truncation_direction,
                    raw_scores=request.raw_scores,
                    return_text=request.return_text,
                )
            for field in COMMON_FIELDS:
                if getattr(request, field) != getattr(joined, field):
                    raise InvalidRequest(field, "must be the same in all requests of a stream")
            if len(joined.texts) == self._limits.max_texts:
                problem = f"at most {self._limits.max_texts} requests in a stream"
                raise CallTooLarge("text", problem, self._limits.max_texts)
            current_hold().hold_more(request.ByteSize())
            joined.texts.append(request.text)
        return joined or tei_pb2.RerankRequest()
