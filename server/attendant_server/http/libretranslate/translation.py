"""Translations in the form of LibreTranslate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from attendant_server.application.application import Application
from attendant_server.application.language_tags import check_tag
from attendant_server.application.markup_translation import Markup
from attendant_server.application.translation import TranslationRequest
from attendant_server.application.translation_options import DEFAULT_OPTIONS, TranslationOptions
from attendant_server.errors import InvalidRequest, LanguageUnknown
from attendant_server.field_names import renamed
from attendant_server.http.exchanges import Call
from attendant_server.http.libretranslate.languages import LanguagesHandler
from attendant_server.http.libretranslate.messages import (
    AUTO,
    DetectedLanguage,
    TranslateRequest,
    Translation,
)

NAMES = {
    "texts": "q",
    "source_language": "source",
    "target_language": "target",
    "markup": "format",
    "options.beam_size": "alternatives",
    "options.num_hypotheses": "alternatives",
}
"""The fields of LibreTranslate for those of the application."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The texts of a request that are in one language."""

    source: str
    places: Sequence[int]
    """The numbers of the texts in the request."""


class TranslationHandler:
    """Translates texts with all translation models, also over pivot languages."""

    def __init__(self, application: Application, languages: LanguagesHandler) -> None:
        self._translator, self._jobs = application.routed_translator, application.jobs
        self._models, self._languages = application.models, languages

    async def __call__(self, request: TranslateRequest, call: Call) -> bytes:
        """Translate one text or several. A bad text fails the call."""
        texts = [request.q] if isinstance(request.q, str) else request.q
        self._check(request, len(texts))
        detected: list[DetectedLanguage] = []
        parts = [_Part(request.source, range(len(texts)))]
        if request.source.lower() == AUTO:
            detected = await self._detect(texts, request.target)
            sources = [each.language for each in detected]
            parts = [
                _Part(source, [i for i, each in enumerate(sources) if each == source])
                for source in dict.fromkeys(sources)
            ]
        found: list[list[str]] = [[] for _ in texts]
        for part in parts:
            translated = await self._translate(request, call, texts, part)
            for place, hypotheses in zip(part.places, translated, strict=True):
                found[place] = hypotheses
        size = sum(map(len, found))
        return await self._jobs.run_for(size, lambda: _response(request, found, detected))

    def _check(self, request: TranslateRequest, num_texts: int) -> None:
        limits = self._models.limits
        try:
            limits.check_count("q", num_texts)
        except InvalidRequest as error:
            raise renamed(error, NAMES) from None
        if request.alternatives >= limits.max_beam_size:
            problem = f"at most {limits.max_beam_size - 1}, got {request.alternatives}"
            raise InvalidRequest("alternatives", problem)

    async def _detect(self, texts: Sequence[str], target: str) -> list[DetectedLanguage]:
        """The language of each text, among those that can be translated into the target.

        A text without letters, which is the same in all languages, is one in the first of them.
        """
        check_tag("target", target)
        sources = self._languages.targets_of_sources()
        tags = sorted(tag for tag, targets in sources.items() if target in targets)
        if not tags:
            known = ", ".join(sorted(set().union(*sources.values()))) or "none"
            raise LanguageUnknown("target", f"must be one of {known}, not {target!r}", target)
        found = await self._languages.detected(texts, [*tags, target], 1)
        return [each[0] if each else DetectedLanguage(0.0, tags[0]) for each in found]

    async def _translate(
        self, request: TranslateRequest, call: Call, texts: Sequence[str], part: _Part
    ) -> list[list[str]]:
        """The translations of some texts, best first."""
        own = [texts[place] for place in part.places]
        if request.source.lower() == AUTO and part.source == request.target:
            return [[text] for text in own]  # it is in the target language already
        markup = Markup.HTML if request.format == "html" else Markup.NONE
        try:
            answer = await self._translator.translate(
                TranslationRequest(
                    texts=own,
                    model=call.model,
                    options=_options(request.alternatives),
                    source_language=part.source,
                    target_language=request.target,
                ),
                markup,
                None,
            )
            found = []
            for place, each in zip(part.places, answer.translations, strict=True):
                if isinstance(each, InvalidRequest):
                    raise InvalidRequest(f"texts[{place}]", each.problem)
                found.append([hypothesis.text for hypothesis in each.hypotheses])
        except InvalidRequest as error:
            one = {"texts[0]": "q"} if isinstance(request.q, str) else {}
            raise renamed(error, NAMES | one) from None
        return found


def _options(num_alternatives: int) -> TranslationOptions:
    if not num_alternatives:
        return DEFAULT_OPTIONS
    width = num_alternatives + 1
    return TranslationOptions(beam_size=max(width, MIN_BEAM_SIZE), num_hypotheses=width)


MIN_BEAM_SIZE = 4
"""Width of a search for alternatives, unless more are asked for."""


def _response(
    request: TranslateRequest, found: Sequence[list[str]], detected: Sequence[DetectedLanguage]
) -> bytes:
    best: Any = [each[0] for each in found]
    others: Any = [each[1:] for each in found] if request.alternatives else None
    languages: Any = list(detected) or None
    if isinstance(request.q, str):
        best, others = best[0], others and others[0]
        languages = languages and languages[0]
    return msgspec.json.encode(Translation(best, others, languages))
