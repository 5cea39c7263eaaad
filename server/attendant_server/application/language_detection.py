"""Detection of the languages of texts."""

import asyncio
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from attendant_server import records
from attendant_server.application.jobs import JobRunner
from attendant_server.application.language_tags import check_tag, longest_match
from attendant_server.application.quotas import current_usage
from attendant_server.application.tokenization import split_into_jobs
from attendant_server.application.validation import TEXTS, RequestLimits
from attendant_server.errors import InvalidRequest, LanguageUnknown, NotInstalled
from attendant_server.language_identifier import EXTRA, LanguageIdentifier
from attendant_server.system.blocking_work import run_blocking

MAX_LANGUAGES = 256
"""Candidates that a request may name."""
LANGUAGE_BYTES = 24
"""Size of one language with its probability in an answer, at most."""


@dataclass(frozen=True, slots=True)
class DetectionRequest:
    """Texts whose languages are asked for."""

    texts: Sequence[str]
    languages: Sequence[str] = ()
    """BCP 47 tags of the languages that are possible; empty for all."""
    max_results: int | None = None
    """Languages of each text. None for one."""


@dataclass(frozen=True, slots=True)
class LanguageProbability:
    """A language, and its probability among those that are possible."""

    language: str
    probability: float


@dataclass(frozen=True, slots=True)
class DetectionAnswer:
    """The likeliest languages, best first, or the fault, of each text of the request, in order."""

    texts: Sequence[Sequence[LanguageProbability] | InvalidRequest]
    size: int
    """Number of languages in the answer, at most, for `JobRunner.run_for`."""


class LanguageDetector:
    """Detects languages with the library, if it is installed."""

    def __init__(
        self,
        load: Callable[[], LanguageIdentifier] | None,
        jobs: JobRunner,
        limits: RequestLimits,
    ) -> None:
        """``load`` is called on a thread of its own at the first call; None without the library."""
        self._load, self._jobs, self._limits = load, jobs, limits
        self._loading: asyncio.Future[LanguageIdentifier] | None = None

    @property
    def is_installed(self) -> bool:
        """Whether calls are answered."""
        return self._load is not None

    async def detect(self, request: DetectionRequest) -> DetectionAnswer:
        """The likeliest languages of each text; raises NotInstalled without the library."""
        identifier = await self._identifier(request)
        tags = _candidates(identifier.languages, request.languages)
        num_texts, max_results = len(request.texts), min(request.max_results or 1, len(tags))
        self._limits.check_response("texts", num_texts * max_results * LANGUAGE_BYTES)
        current_usage().take_texts(num_texts)
        record = records.current()
        record.num_texts += num_texts
        found: list[Sequence[LanguageProbability] | InvalidRequest] = []
        for job in split_into_jobs(request.texts):
            judge = partial(self._judged, identifier, tags, max_results, job, len(found))
            found += await self._jobs.run(judge)
        record.num_invalid_texts += sum(isinstance(each, InvalidRequest) for each in found)
        return DetectionAnswer(found, size=num_texts * max_results)

    async def _identifier(self, request: DetectionRequest) -> LanguageIdentifier:
        """The loaded library; first checks what can be checked without it."""
        if self._load is None:
            raise NotInstalled(f"this server detects no languages: it needs {EXTRA}")
        self._limits.check_count("texts", len(request.texts))
        if request.max_results is not None and request.max_results < 1:
            raise InvalidRequest("max_results", f"at least 1, got {request.max_results}")
        if len(request.languages) > MAX_LANGUAGES:
            problem = f"at most {MAX_LANGUAGES}, got {len(request.languages)}"
            raise InvalidRequest("languages", problem)
        for i, tag in enumerate(request.languages):
            check_tag(f"languages[{i}]", tag)
        loading = self._loading
        if loading is None or (loading.done() and loading.exception() is not None):
            loading = self._loading = asyncio.ensure_future(run_blocking(self._load))
        return await asyncio.shield(loading)  # which goes on if this call is cancelled

    def _judged(
        self,
        identifier: LanguageIdentifier,
        tags: Collection[str],
        max_results: int,
        texts: Sequence[str],
        first: int,
    ) -> list[Sequence[LanguageProbability] | InvalidRequest]:
        """The languages or the fault of each text; the number of the first one is ``first``."""
        limit = self._limits.max_text_characters
        found: list[Sequence[LanguageProbability] | InvalidRequest] = []
        for number, text in enumerate(texts, first):
            if len(text) > limit:
                problem = f"at most {limit} characters, got {len(text)}"
                found.append(InvalidRequest(TEXTS.format(number), problem))
            elif any(map(str.isalpha, text)):
                found.append(_likeliest(identifier.log_probabilities(text), tags)[:max_results])
            else:
                found.append(())
        return found


def _candidates(known: Collection[str], languages: Sequence[str]) -> Collection[str]:
    """The known tags that a request means; raises LanguageUnknown for others."""
    by_tag, found = {tag.lower(): tag for tag in known}, set[str]()
    for i, language in enumerate(languages):
        tag = longest_match(by_tag, language)
        if tag is None:
            problem = f"must be one of {', '.join(sorted(known))}, not {language!r}"
            raise LanguageUnknown(f"languages[{i}]", problem, language)
        found.add(tag)
    return found or known


def _likeliest(scores: Mapping[str, float], tags: Collection[str]) -> list[LanguageProbability]:
    """The candidates with their probabilities, likeliest first; equal ones in alphabetical order.

    Empty without scores.
    """
    if not scores:
        return []
    best = max(scores[tag] for tag in tags)
    weights = {tag: math.exp(scores[tag] - best) for tag in tags}
    total = sum(weights.values())
    return [
        LanguageProbability(tag, weights[tag] / total)
        for tag in sorted(tags, key=lambda tag: (-scores[tag], tag))
    ]
