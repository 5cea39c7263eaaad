"""Translations in the form of LibreTranslate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from attendant_server.application.application import Application
from attendant_server.application.language_tags import check_tag, longest_match
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
MIN_BEAM_SIZE = 4
"""Width of a search for alternatives, unless more are asked for or the limit is lower."""


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
        limits.check_count("q", num_texts)
        if request.alternatives >= limits.max_beam_size:
            problem = f"at most {limits.max_beam_size - 1}, got {request.alternatives}"
            raise InvalidRequest("alternatives", problem)

    async def _detect(self, texts: Sequence[str], target: str) -> list[DetectedLanguage]:
        """The language of each text: the target, or one that can be translated into it.

        A text without letters, which is the same in all languages, is one in the first of the
        latter. The detector may know "pt" where the request or a model has "pt-BR".
        """
        sources = self._sources(target)
        found = await self._languages.detected(texts, [target, *sources], 1)

        def own(language: str) -> str:
            known = {language.lower(): language}
            return next(each for each in [target, *sources] if longest_match(known, each))

        return [
            DetectedLanguage(each[0].confidence, own(each[0].language))
            if each
            else DetectedLanguage(0.0, sources[0])
            for each in found
        ]

    def _sources(self, target: str) -> list[str]:
        """The tags of the languages that can be translated into a language, at least one."""
        check_tag("target", target)
        languages = self._languages.targets_of_sources()
        found = sorted(
            source
            for source, targets in languages.items()
            if longest_match({each.lower(): each for each in targets}, target)
        )
        if not found:
            known = ", ".join(sorted(set().union(*languages.values()))) or "none"
            raise LanguageUnknown("target", f"must be one of {known}, not {target!r}", target)
        return found

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
                    options=self._options(request.alternatives),
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

    def _options(self, num_alternatives: int) -> TranslationOptions:
        if not num_alternatives:
            return DEFAULT_OPTIONS
        number = num_alternatives + 1
        width = min(max(number, MIN_BEAM_SIZE), self._models.limits.max_beam_size)
        return TranslationOptions(beam_size=width, num_hypotheses=number)


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
