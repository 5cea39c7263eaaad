"""Translates texts by a server. No other module of this package calls servers."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from attendant_client import Client
from attendant_client.errors import (
    CallError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    TextError,
    UnauthenticatedError,
    UnsupportedError,
)
from attendant_client.options import Sampling
from attendant_client.results import Translation
from grpc import StatusCode

from attendant_export.corpora.texts import CorpusText

_REFUSALS = (
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnsupportedError,
)
"""Errors of calls that fail again if nothing is changed."""
_LIMITS = (StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED)
"""Codes of texts that exceed a limit, which they will exceed again."""
_MODEL_FAULT = StatusCode.INTERNAL
"""Code of texts on which the model failed, perhaps because of another text of the same batch."""
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

    def resolved(self) -> "Translator":
        """The same with the name and version of the model, so that all calls get this version.

        Raises as `translate`, and ValueError for a model of another kind.
        """
        try:
            info = self.client.model(self.model).info
        except CallError as error:
            raise _failure(error) from error
        if info.kind != "translation":
            raise ValueError(f"{self.model} is no translation model, but of the kind {info.kind}")
        return replace(self, model=f"{info.name}/{info.version}")

    def translate(
        self, texts: Iterable[CorpusText], first_index: int
    ) -> Iterator[tuple[CorpusText, Translated]]:
        """Each text and its translation, in order.

        ``first_index`` is the number of the first text among all that are translated. Reads up to
        512 texts ahead. A text on which the model fails is sent once more. Raises ValueError if the
        server refuses the call. Raises TranslationFailed if the call fails, or a text for another
        reason than the text or the model, such as a deadline of the server.
        """
        sent: deque[CorpusText] = deque()

        def send() -> Iterator[str]:
            for text in texts:
                sent.append(text)
                yield text.text

        for index, result in enumerate(self._results(send(), first_index), first_index):
            text = sent.popleft()
            if result.error is not None and result.error.code == _MODEL_FAULT:
                [result] = self._results([text.text], index)
            yield text, _translated(result)

    def _results(self, texts: Iterable[str], first_index: int) -> Iterator[Translation]:
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
                yield from results
        except CallError as error:
            raise _failure(error) from error


def _translated(result: Translation) -> Translated:
    if result.error is not None:
        return _untranslated(result.error)
    best = result.hypotheses[0]
    total = sum(token.log_probability for token in best.tokens)
    return Translated(
        re.sub(r"[\t\r\n]+", " ", best.text),
        total / max(1, len(best.tokens)),
        result.num_source_tokens,
        len(best.tokens),
        best.finish_reason == "stop" and not best.num_avoided_repetitions,
    )


def _untranslated(error: TextError) -> Translated:
    """Why a text is left out. Raises TranslationFailed for a fault that may pass."""
    if error.code in _LIMITS:
        return Translated(reason=REFUSED, fault=error.message)
    if error.code == _MODEL_FAULT:
        return Translated(reason=FAILED, fault=error.message)
    raise TranslationFailed(f"the server failed: {error.message}; {REMEDY}")


def _failure(error: CallError) -> Exception:
    if isinstance(error, _REFUSALS):
        return ValueError(f"the server refuses to translate: {error}")
    return TranslationFailed(f"the server failed: {error}; {REMEDY}")
