"""The part for masks and labels; `make clients` generates the synchronous one from this module.

The asyncio client inherits its methods, whose common options its docstring describes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

from attendant_client import embedding_messages, embedding_results, messages, results
from attendant_client.calls import TextCall
from attendant_client.options import Candidates, OffsetUnit, TextNormalization, Truncation

Result = TypeVar("Result", bound=results.TextResult)


class AsyncPredictionCalls(ABC):
    """The methods of a client that predict masked words and labels."""

    @overload
    async def fill_mask(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        top_k: int | None = None,
        *,
        model: str = "",
        candidates: Sequence[str] | Sequence[Sequence[str]] | None = None,
        joint: bool = False,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.FilledText: ...
    @overload
    async def fill_mask(
        self,
        texts: Sequence[str],
        top_k: int | None = None,
        *,
        model: str = "",
        candidates: Sequence[str] | Sequence[Sequence[Sequence[str]]] | None = None,
        joint: bool = False,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[embedding_results.FilledText]: ...
    async def fill_mask(
        self,
        texts: str | Sequence[str],
        top_k: int | None = None,
        *,
        model: str = "",
        candidates: Candidates | None = None,
        joint: bool = False,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.FilledText | results.Results[embedding_results.FilledText]:
        """Return the `top_k` likeliest tokens for every "[MASK]", 5 if absent.

        `candidates`: texts to rank instead, each a single token: a list for all masks, or for each
        text a list for each of its masks. All of them are returned if `top_k` is absent.
        `joint`: whether the masks of a text are filled together, from the first to the last one;
        `FilledText.fillings` has the `top_k` likeliest ones.
        """
        call = embedding_messages.fill_mask(
            texts,
            top_k,
            model=model,
            candidates=candidates,
            joint=joint,
            text_normalization=text_normalization,
            offset_unit=offset_unit,
            truncation=truncation,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        return messages.one_or_all(texts, found)  # type: ignore[no-any-return]

    @overload
    async def classify(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        text_pairs: str | None = None,
        *,
        model: str = "",
        top_k: int | None = None,
        raw_scores: bool = False,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.ClassifiedText: ...
    @overload
    async def classify(
        self,
        texts: Sequence[str],
        text_pairs: Sequence[str] | None = None,
        *,
        model: str = "",
        top_k: int | None = None,
        raw_scores: bool = False,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[embedding_results.ClassifiedText]: ...
    async def classify(
        self,
        texts: str | Sequence[str],
        text_pairs: str | Sequence[str] | None = None,
        *,
        model: str = "",
        top_k: int | None = None,
        raw_scores: bool = False,
        text_normalization: TextNormalization | None = None,
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> embedding_results.ClassifiedText | results.Results[embedding_results.ClassifiedText]:
        """Return the scores of a model's labels; `text_pairs` are the second texts of pairs.

        `top_k`: labels returned for each text; all if absent.
        `raw_scores`: whether scores are those of the head, before softmax or sigmoid.
        """
        call = embedding_messages.classify(
            texts,
            text_pairs,
            model=model,
            top_k=top_k,
            raw_scores=raw_scores,
            text_normalization=text_normalization,
            truncation=truncation,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        return messages.one_or_all(texts, found)  # type: ignore[no-any-return]

    @abstractmethod
    async def _texts(
        self, call: TextCall[Result], timeout_seconds: float | None, request_id: str | None
    ) -> results.Results[Result]: ...
