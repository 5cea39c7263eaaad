"""The part for scores and tokens; `make clients` generates the synchronous one from this module.

The asyncio client inherits its methods, whose common options its docstring describes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar, overload

from attendant_client import messages, results
from attendant_client.calls import TextCall
from attendant_client.options import OffsetUnit, Side, TextNormalization, Truncation

Result = TypeVar("Result", bound=results.TextResult)


class AsyncScoringCalls(ABC):
    """The methods of a client that score translations and show tokens."""

    async def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        model: str = "",
        source_language: str = "",
        target_language: str = "",
        controls: Mapping[str, str] | None = None,
        length_penalty: float | None = None,
        return_tokens: bool = False,
        return_alignments: bool = False,
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        truncation: Truncation = "refuse",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[results.TranslationScore]:
        """Return the model's log-probabilities of (source, translation) pairs.

        `return_tokens`: whether scores have the tokens of their targets with log-probabilities.
        `return_alignments`: whether scores have the links between the words of their pairs; for
        models that can align words.
        `source_language`, `target_language`, `controls`, `length_penalty`: as for `translate`.
        """
        call = messages.score(
            pairs,
            model=model,
            source_language=source_language,
            target_language=target_language,
            controls=controls,
            length_penalty=length_penalty,
            return_tokens=return_tokens,
            return_alignments=return_alignments,
            text_normalization=text_normalization,
            offset_unit=offset_unit,
            truncation=truncation,
        )
        return await self._texts(call, timeout_seconds, request_id)

    @overload
    async def tokenize(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        *,
        model: str = "",
        side: Side = "source",
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Tokenization: ...
    @overload
    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        model: str = "",
        side: Side = "source",
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[results.Tokenization]: ...
    async def tokenize(
        self,
        texts: str | Sequence[str],
        *,
        model: str = "",
        side: Side = "source",
        text_normalization: TextNormalization | None = None,
        offset_unit: OffsetUnit = "code_points",
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Tokenization | results.Results[results.Tokenization]:
        """Return the tokens that a model would read.

        `side`: whether texts are read as a "source" (default) or as a "target" of a translation
        model.
        """
        call = messages.tokenize(
            texts,
            model=model,
            side=side,
            text_normalization=text_normalization,
            offset_unit=offset_unit,
        )
        found = await self._texts(call, timeout_seconds, request_id)
        return messages.one_or_all(texts, found)  # type: ignore[no-any-return]

    @abstractmethod
    async def _texts(
        self, call: TextCall[Result], timeout_seconds: float | None, request_id: str | None
    ) -> results.Results[Result]: ...
