"""The routes of LibreTranslate's protocol."""

from collections.abc import Iterator
from functools import partial

from attendant_server.application.application import Application
from attendant_server.foreign_methods import LIBRETRANSLATE
from attendant_server.http.json_routes import JsonRoute
from attendant_server.http.libretranslate import messages
from attendant_server.http.libretranslate.languages import LanguagesHandler
from attendant_server.http.libretranslate.translation import TranslationHandler
from attendant_server.records import Method
from attendant_server.settings import Settings

Route = partial(JsonRoute, dialect=messages.LIBRETRANSLATE_DIALECT)


def libretranslate_routes(application: Application, settings: Settings) -> Iterator[JsonRoute]:
    """All routes."""
    languages = LanguagesHandler(application, settings)
    yield Route(
        path="/translate",
        verb="POST",
        method=Method(LIBRETRANSLATE, "Translate", "unary"),
        summary="Translate texts",
        request=messages.TranslateRequest,
        response=messages.Translation,
        handle=TranslationHandler(application, languages),
        takes_forms=True,
        key_field="api_key",
    )
    yield Route(
        path="/detect",
        verb="POST",
        method=Method(LIBRETRANSLATE, "Detect", "unary"),
        summary="Detect the language of a text",
        request=messages.DetectRequest,
        response=list[messages.DetectedLanguage],
        handle=languages.detect,
        takes_forms=True,
        key_field="api_key",
    )
    yield Route(
        path="/languages",
        verb="GET",
        method=Method(LIBRETRANSLATE, "Languages", "unary"),
        summary="List the languages",
        response=list[messages.Language],
        handle=languages.languages,
    )
    yield Route(
        path="/frontend/settings",
        verb="GET",
        method=Method(LIBRETRANSLATE, "FrontendSettings", "unary"),
        summary="Show the settings of a page",
        response=messages.FrontendSettings,
        handle=languages.settings,
    )
