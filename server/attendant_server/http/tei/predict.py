"""Labels of texts and pairs, and the order of texts for a query."""

from collections.abc import Sequence
from typing import Any

import msgspec

from attendant_server.application.application import Application
from attendant_server.application.classification import ClassificationRequest, ClassifiedText
from attendant_server.application.reranking import RerankingRequest
from attendant_server.errors import InvalidRequest
from attendant_server.field_names import renamed_fields
from attendant_server.http.exchanges import Call
from attendant_server.http.tei.messages import Prediction, PredictRequest, Rank, RerankRequest
from attendant_server.tei_requests import INPUTS, checked_pair
from attendant_server.text_faults import without_faults

BATCH = {"texts": "inputs", "text_pairs": "inputs"}
MIXED = "must be a text, a pair of texts, or a list of lists that are all texts or all pairs"


class PredictHandler:
    """Classifies texts, and orders them, with all models that have a classification head."""

    def __init__(self, application: Application) -> None:
        self._classifier, self._reranker = application.classifier, application.reranker
        self._jobs = application.jobs

    async def predict(self, request: PredictRequest, call: Call) -> bytes:
        """The labels of a text or pair, or those of each one of a list."""
        texts, pairs, is_batch = _read(request.inputs)
        with renamed_fields(BATCH if is_batch else INPUTS):
            answer = await self._classifier.classify(
                ClassificationRequest(
                    texts=texts,
                    text_pairs=pairs,
                    model=call.model,
                    raw_scores=request.raw_scores,
                    truncation=request.truncation,
                ),
                None,
            )
            results = without_faults(answer.texts)

        def response() -> bytes:
            found = [_predictions(each) for each in results]
            return msgspec.json.encode(found if is_batch else found[0])

        return await self._jobs.run_for(answer.size, response)

    async def rerank(self, request: RerankRequest, call: Call) -> bytes:
        """The texts in the order of their scores."""
        with renamed_fields({"documents": "texts"}):
            answer = await self._reranker.rerank(
                RerankingRequest(
                    query=request.query,
                    documents=request.texts,
                    model=call.model,
                    raw_scores=request.raw_scores,
                    truncation=request.truncation,
                ),
                None,
            )
            for _, fault in answer.faults:
                raise fault

        def response() -> bytes:
            texts = request.texts if request.return_text else [None] * len(request.texts)
            return msgspec.json.encode(
                [Rank(each.index, each.score, texts[each.index]) for each in answer.documents]
            )

        return await self._jobs.run_for(answer.size, response)


def _read(inputs: Any) -> tuple[Sequence[str], Sequence[str], bool]:
    """The first texts, the second texts of pairs, and whether there may be several."""
    if isinstance(inputs, str):
        return [inputs], [], False
    if all(isinstance(each, str) for each in inputs):
        if len(inputs) == 1:
            return inputs, [], False
        first, second = checked_pair(inputs)
        return [first], [second], False
    if any(isinstance(each, str) for each in inputs):
        raise InvalidRequest("inputs", MIXED)
    seconds = [each.second for each in inputs if each.second is not msgspec.UNSET]
    if len(seconds) not in (0, len(inputs)):
        raise InvalidRequest("inputs", MIXED)
    return [each.first for each in inputs], seconds, True


def _predictions(found: ClassifiedText) -> list[Prediction]:
    return [
        Prediction(score, label) for label, score in zip(found.labels, found.scores, strict=True)
    ]
