"""Requests and answers of LibreTranslate, and its errors."""

from typing import Annotated, Any, Literal

import msgspec

from attendant_server.http.json_routes import Dialect
from attendant_server.http.statuses import Failure

AUTO = "auto"
Text = str | Annotated[list[str], msgspec.Meta(min_length=1)]


class TranslateRequest(msgspec.Struct, kw_only=True):
    """A text or a list of texts to translate."""

    q: Text
    source: Annotated[str, msgspec.Meta(min_length=1)]
    """BCP 47 tag, or ``auto``."""
    target: Annotated[str, msgspec.Meta(min_length=1)]
    """BCP 47 tag."""
    format: Literal["text", "html"] = "text"
    alternatives: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Further translations of each text."""
    api_key: str | None = None
    """The credential, instead of the header ``authorization``."""


class DetectRequest(msgspec.Struct, kw_only=True):
    """A text whose language is asked for."""

    q: str
    api_key: str | None = None
    """The credential, instead of the header ``authorization``."""


class DetectedLanguage(msgspec.Struct):
    """A language, and its probability in percent."""

    confidence: float
    language: str


class Translation(msgspec.Struct, omit_defaults=True):
    """The translations; lists if ``q`` is one."""

    translatedText: str | list[str]
    alternatives: list[str | list[str]] | None = None
    """With ``alternatives`` in the request."""
    detectedLanguage: DetectedLanguage | list[DetectedLanguage] | None = None
    """With the source ``auto``."""


class Language(msgspec.Struct):
    """A language that can be translated."""

    code: str
    """BCP 47 tag."""
    name: str
    """The tag, since bundles have no names of languages."""
    targets: list[str]
    """Tags of the languages into which it can be translated."""


class LanguageChoice(msgspec.Struct):
    """A language to begin with."""

    code: str
    name: str


class LanguageChoices(msgspec.Struct):
    """The languages to begin with."""

    source: LanguageChoice
    target: LanguageChoice


class FrontendSettings(msgspec.Struct, kw_only=True):
    """What a page of LibreTranslate asks for first."""

    apiKeys: bool
    charLimit: int
    frontendTimeout: int = 500
    keyRequired: bool
    language: LanguageChoices
    suggestions: bool = False
    filesTranslation: bool = False
    supportedFilesFormat: list[str] = []


class Error(msgspec.Struct):
    """The answer of a call that has failed."""

    error: str


def error_of(failure: Failure) -> Any:
    """The answer of a call that has failed."""
    return Error(failure.message)


LIBRETRANSLATE_DIALECT = Dialect("libretranslate", Error, error_of)
