"""The part for languages of texts; `make clients` generates the synchronous one from this module.

The asyncio client inherits its method, whose common options its docstring describes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

from attendant_client import detection_messages, detection_results, messages, results
from attendant_client.calls import TextCall

Result = TypeVar("Result", bound=results.TextResult)


class AsyncDetectionCalls(ABC):
    """The method of a client that detects languages."""

    @overload
    async def detect_language(  # type: ignore[overload-overlap]  # a str is a Sequence too
        self,
        texts: str,
        *,
        languages: Sequence[str] = (),
        max_results: int | None = None,
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> detection_results.DetectedLanguages: ...
    @overload
    async def detect_language(
        self,
        texts: Sequence[str],
        *,
        languages: Sequence[str] = (),
        max_results: int | None = None,
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> results.Results[detection_results.DetectedLanguages]: ...
    async def detect_language(
        self,
        texts: str | Sequence[str],
        *,
        languages: Sequence[str] = (),
        max_results: int | None = None,
        timeout_seconds: float | None = None,
        request_id: str | None = None,
    ) -> detection_results.DetectedLanguages | results.Results[detection_results.DetectedLanguages]:
        """Return the likeliest languages of texts. Short texts are uncertain.

        `languages`: BCP 47 tags of the languages that are possible; all that the server knows if
        there are none.
        `max_results`: languages returned for each text; 1 if absent.
        """
        call = detection_messages.detect_language(
            texts, languages=languages, max_results=max_results
        )
        found = await self._texts(call, timeout_seconds, request_id)
        return messages.one_or_all(texts, found)  # type: ignore[no-any-return]

    @abstractmethod
    async def _texts(
        self, call: TextCall[Result], timeout_seconds: float | None, request_id: str | None
    ) -> results.Results[Result]: ...
