"""The part for comparisons; `make clients` generates the synchronous one from this module.

The asyncio client inherits its methods, whose common options its docstring describes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar, overload

from attendant_client import comparisons, results
from attendant_client.calls import TextCall
from attendant_client.comparison_results import RankedDocument, SimilarTexts
from attendant_client.options import Pooling, TextNormalization, Truncation

Result = TypeVar("Result", bound=results.TextResult)


class AsyncComparisonCalls(ABC):
    """The methods of a client that compare texts."""

    @overload
    async def similarity(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        queries: str,
        texts: str,
        *,
        model: str = "",
        top_k: int | None = None,
        pooling: Pooling | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        query_prompt_name: str | None = None,
        text_prompt_name: str | None = None,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> float: ...
    @overload
    async def similarity(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        queries: str,
        texts: Sequence[str],
        *,
        model: str = "",
        top_k: int | None = None,
        pooling: Pooling | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        query_prompt_name: str | None = None,
        text_prompt_name: str | None = None,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> SimilarTexts: ...
    @overload
    async def similarity(
        self,
        queries: Sequence[str],
        texts: str | Sequence[str],
        *,
        model: str = "",
        top_k: int | None = None,
        pooling: Pooling | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        query_prompt_name: str | None = None,
        text_prompt_name: str | None = None,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[SimilarTexts]: ...
    async def similarity(
        self,
        queries: str | Sequence[str],
        texts: str | Sequence[str],
        *,
        model: str = "",
        top_k: int | None = None,
        pooling: Pooling | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        query_prompt_name: str | None = None,
        text_prompt_name: str | None = None,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> float | SimilarTexts | results.Results[SimilarTexts]:
        """Return the cosine between the embeddings of queries and of texts, -1 to 1.

        One query and one text have a number; TextError is raised if one of them fails. One query
        and several texts have a `SimilarTexts`, and several queries a list of them.
        `top_k`: texts returned for each query, the most similar ones; all if absent.
        `pooling`, `dimensions`, `force_dimensions`: as for `embed`.
        `query_prompt_name`, `text_prompt_name`: names of prompts that the model reads before every
        query and every text, as `prompt_name` of `embed`.
        """
        call = comparisons.similarity(
            queries,
            texts,
            model=model,
            top_k=top_k,
            pooling=pooling,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            query_prompt_name=query_prompt_name,
            text_prompt_name=text_prompt_name,
            text_normalization=text_normalization,
            truncation=truncation,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        if not isinstance(queries, str):
            return found
        return comparisons.only_score(found[0]) if isinstance(texts, str) else found[0]

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str = "",
        top_k: int | None = None,
        raw_scores: bool = False,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[RankedDocument]:
        """Return documents in the order of their scores for a query, from a cross-encoder.

        Documents that failed come last. Raises InvalidRequestError for an empty query.
        `top_k`: documents returned, those with the highest scores; all if absent.
        `raw_scores`: whether scores are those of the head, before the score function of the model.
        """
        call = comparisons.rerank(
            query,
            documents,
            model=model,
            raw_scores=raw_scores,
            text_normalization=text_normalization,
            truncation=truncation,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        numbered = [replace(document, index=i) for i, document in enumerate(found)]
        return comparisons.best_documents(numbered, top_k)

    @abstractmethod
    async def _texts(
        self, call: TextCall[Result], timeout_seconds: float | None, request_id: str | None
    ) -> results.Results[Result]: ...
