"""Translates texts by a server. No other module of this package calls servers."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from attendant_client import Client
from attendant_client.errors import (
    CallError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnsupportedError,
)
from attendant_client.options import Sampling
from attendant_client.results import Translation
from grpc import StatusCode

_REFUSALS = (
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnsupportedError,
)
"""Errors of calls that fail again if nothing is changed."""
_LIMITS = (StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED)
"""Codes of texts that exceed a limit."""
REFUSED, FAILED = "refused by the server", "failed in the server"
"""Reasons for which a text has no translation."""
REMEDY = "run the same command again to continue"


class TranslationFailed(Exception):
    """A server failed, or cannot be reached. The texts before are translated."""


@dataclass(frozen=True, slots=True)
class Search:
    """How texts are translated. None takes the default of the model or server."""

    beam_size: int | None = None
    sampling_temperature: float | None = None
    """Draw tokens at random with this temperature; None: search for the likeliest translation."""
    top_k: int | None = None
    """Limit of the likeliest tokens of which one is drawn."""
    seed: int = 1
    source_language: str = ""
    target_language: str = ""

    def __post_init__(self) -> None:
        if self.sampling_temperature is None and self.top_k is not None:
            raise ValueError("--top-k: is for --sampling-temperature only")
        if self.sampling_temperature is not None and self.beam_size not in (None, 1):
            raise ValueError("--beam-size: is for searches, not for --sampling-temperature")

    def sampling(self, first_index: int) -> Sampling | None:
        """The random choices for a call that begins with this text of all texts."""
        if self.sampling_temperature is None:
            return None
        return Sampling(
            temperature=self.sampling_temperature,
            top_k=self.top_k,
            seed=self.seed,
            first_index=first_index,
        )


@dataclass(frozen=True, slots=True)
class Translated:
    """The best translation of a text, or why there is none."""

    text: str = ""
    score: float = 0.0
    """Mean log-probability of the tokens; 0 for a text that was copied as a whole."""
    num_source_tokens: int = 0
    num_target_tokens: int = 0
    is_complete: bool = False
    """Whether it neither reached the limit of tokens nor began to repeat itself."""
    reason: str | None = None
    """`REFUSED` or `FAILED`; None if the text was translated."""
    fault: str = ""
    """What the server says of a text that was not translated, such as its length."""


@dataclass(frozen=True, slots=True)
class Translator:
    """A translation model of a server."""

    client: Client
    model: str
    search: Search

    def full_name(self) -> str:
        """The name and version of the model. Raises as `translate`, and for another kind."""
        try:
            info = self.client.model(self.model).info
        except CallError as error:
            raise _failure(error) from error
        if info.kind != "translation":
            raise ValueError(f"{self.model} is no translation model, but of the kind {info.kind}")
        return f"{info.name}/{info.version}"

    def translate(self, texts: Iterable[str], first_index: int) -> Iterator[Translated]:
        """The translations, in the order of ``texts``, which begin with this text of all texts.

        Reads up to 512 texts ahead. Raises ValueError if the server refuses the call, and
        TranslationFailed if it fails.
        """
        results = self.client.bulk_translate(
            texts,
            model=self.model,
            source_language=self.search.source_language,
            target_language=self.search.target_language,
            beam_size=self.search.beam_size,
            sampling=self.search.sampling(first_index),
            return_tokens=True,
        )
        try:
            with results:
                yield from map(_translated, results)
        except CallError as error:
            raise _failure(error) from error


def _translated(result: Translation) -> Translated:
    if result.error is not None:
        reason = REFUSED if result.error.code in _LIMITS else FAILED
        return Translated(reason=reason, fault=result.error.message)
    best = result.hypotheses[0]
    total = sum(token.log_probability for token in best.tokens)
    return Translated(
        re.sub(r"[\t\r\n]+", " ", best.text),
        total / max(1, len(best.tokens)),
        result.num_source_tokens,
        len(best.tokens),
        best.finish_reason == "stop",
    )


def _failure(error: CallError) -> Exception:
    if isinstance(error, _REFUSALS):
        return ValueError(f"the server refuses to translate: {error}")
    return TranslationFailed(f"the server failed: {error}; {REMEDY}")
