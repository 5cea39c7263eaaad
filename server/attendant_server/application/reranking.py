"""Scores of documents for a query, by cross-encoders."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.classification import apply_score_function
from attendant_server.application.descriptions import ModelKind, ScoreFunction
from attendant_server.application.distinct import distinct
from attendant_server.application.jobs import JobRunner
from attendant_server.application.tokenization import good, num_tokens, tokenize, tokenize_all
from attendant_server.application.tokenization_options import (
    TextPair,
    TokenizationOptions,
    Truncation,
    TruncationReport,
    tokenization_options,
)
from attendant_server.application.validation import RequestLimits
from attendant_server.engine.encoder_calls import LABEL_SCORES, EmbedCall
from attendant_server.errors import InvalidRequest, ModelWithoutHead

DOCUMENTS = "documents[{}]"


@dataclass(frozen=True, slots=True)
class RerankingRequest:
    """A query, and documents to score for it.

    ``truncation`` and ``text_normalization`` are numbers of their enums, 0 for the default.
    """

    query: str
    documents: Sequence[str]
    model: str = ""
    top_k: int | None = None
    """Documents in the answer. None for all."""
    raw_scores: bool = False
    """Whether scores are those before the score function."""
    truncation: int = 0
    text_normalization: int = 0


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document with its score."""

    index: int
    """Its index in the request."""
    score: float
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankingAnswer(Answer):
    """The documents with the highest scores, highest first."""

    documents: Sequence[RankedDocument]
    faults: Sequence[tuple[int, InvalidRequest]]
    """The indices of documents without a score, ascending, with their faults."""
    score_function: ScoreFunction
    """The function that was applied."""


class Reranker:
    """Scores documents with all embedding models that have a head with one label."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def rerank(
        self, request: RerankingRequest, seconds_left: float | None
    ) -> RerankingAnswer:
        """The documents in the order of their scores.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        model, tokenization = self._prepare(request)
        await self._check_query(request.query, tokenization)
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)

        pairs = [TextPair(request.query, document) for document in request.documents]
        texts = await tokenize(self._jobs, tokenization, DOCUMENTS, pairs)
        readable = distinct((text.first_length, tuple(text.token_ids)) for text in good(texts))
        call = EmbedCall(
            [token_ids for _, token_ids in readable.keys],
            (LABEL_SCORES,),
            deadline,
            first_lengths=[length for length, _ in readable.keys],
        )
        results = await model.answer(call)

        description = model.description
        function = ScoreFunction.IDENTITY if request.raw_scores else description.score_function
        raw = np.array([result[LABEL_SCORES][0] for result in results], np.float64)
        scores = apply_score_function(function, raw[:, None])[:, 0]
        indices = [i for i, text in enumerate(texts) if not isinstance(text, InvalidRequest)]
        # Functions of scores may be equal where the scores are not.
        best = np.argsort(-raw[readable.places], kind="stable")[: request.top_k]
        return RerankingAnswer(
            model=description.key,
            documents=[
                RankedDocument(
                    indices[i],
                    float(scores[readable.places[i]]),
                    tokenization.report(texts[indices[i]]),
                )
                for i in best.tolist()
            ],
            faults=[(i, text) for i, text in enumerate(texts) if isinstance(text, InvalidRequest)],
            score_function=function,
            num_input_tokens=num_tokens(texts),
            phases=records.current().phases(),
            size=len(texts),
        )

    def _prepare(self, request: RerankingRequest) -> tuple[ServedModel, TokenizationOptions]:
        self._limits.check_count("documents", len(request.documents))
        model = self._catalog.serving(
            request.model, ModelKind.EMBEDDING, lambda d: len(d.labels) == 1, "reranking"
        )
        description = model.description
        if request.top_k == 0:
            raise InvalidRequest("top_k", "at least 1, got 0")
        if len(description.labels) != 1:
            raise ModelWithoutHead(f"{description.key} has no classification head with one label")
        options = tokenization_options(
            model.source_tokenizer,
            description.max_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
        )
        return model, replace(options, second_field=DOCUMENTS)

    async def _check_query(self, query: str, options: TokenizationOptions) -> None:
        """Raise InvalidRequest for a query that is empty or has too many characters.

        A query with many tokens may still fit together with a short document, once truncated.
        """
        options = replace(options, truncation=Truncation.RIGHT)
        [found] = await self._jobs.run_for(
            len(query), lambda: tokenize_all(options, "query", [query], 0, one_by_one=True)
        )
        if isinstance(found, InvalidRequest):
            raise found
