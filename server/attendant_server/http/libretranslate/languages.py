"""The languages that can be translated, and their detection."""

from collections.abc import Mapping, Sequence

from attendant_server.application.application import Application
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.language_detection import DetectionRequest
from attendant_server.field_names import renamed_fields
from attendant_server.http.exchanges import Call
from attendant_server.http.libretranslate.messages import (
    DetectedLanguage,
    DetectRequest,
    FrontendSettings,
    Language,
    LanguageChoice,
    LanguageChoices,
)
from attendant_server.settings import Settings
from attendant_server.text_faults import without_faults


class LanguagesHandler:
    """Lists languages, and detects them."""

    def __init__(self, application: Application, settings: Settings) -> None:
        self._models, self._detector = application.models, application.language_detector
        self._translator, self._settings = application.routed_translator, settings

    async def languages(self, request: None, call: Call) -> list[Language]:
        """The languages of the models that the caller may use."""
        return [
            Language(code, code, sorted(targets))
            for code, targets in sorted(self.targets_of_sources().items())
        ]

    async def detect(self, request: DetectRequest, call: Call) -> list[DetectedLanguage]:
        """The likeliest languages of a text, best first."""
        [found] = await self.detected([request.q], (), 5)
        return found

    async def settings(self, request: None, call: Call) -> FrontendSettings:
        """The settings of a page."""
        found = await self.languages(None, call)
        source, target = (found[0].code, found[0].targets[0]) if found else ("", "")
        settings = self._settings
        has_keys = bool(settings.api_keys or settings.jwt_keys or settings.jwt_secret)
        choices = LanguageChoices(LanguageChoice(source, source), LanguageChoice(target, target))
        return FrontendSettings(
            apiKeys=has_keys,
            charLimit=settings.max_text_characters,
            keyRequired=has_keys,
            language=choices,
        )

    def targets_of_sources(self) -> Mapping[str, set[str]]:
        """The tags of all target languages, by those of the source languages."""
        found: dict[str, set[str]] = {}
        for model in self._models.list():
            if model.description.kind is not ModelKind.TRANSLATION:
                continue
            targets = {each.tag for each in model.description.target_languages}
            for source in model.description.source_languages:
                found.setdefault(source.tag, set()).update(targets)
        for route in self._translator.routes():
            targets = {each.tag for each in route.second.target_languages}
            for source in route.first.source_languages:
                found[source.tag] |= targets
        return {source: targets - {source} or targets for source, targets in found.items()}

    async def detected(
        self, texts: Sequence[str], languages: Sequence[str], max_results: int
    ) -> list[list[DetectedLanguage]]:
        """The likeliest of some languages, or of all, for each text, best first.

        Raises NotInstalled, or the fault of a text.
        """
        with renamed_fields({"texts": "q", "texts[0]": "q", "languages": "source"}):
            answer = await self._detector.detect(DetectionRequest(texts, languages, max_results))
            results = without_faults(answer.texts)
        return [
            [DetectedLanguage(round(100 * found.probability, 1), found.language) for found in each]
            for each in results
        ]
