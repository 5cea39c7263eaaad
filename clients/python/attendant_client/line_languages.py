"""The languages of the lines of `attendant translate --from auto`.

The server detects the language of each line, and the lines of each language are translated by the
model that reads it. A line whose language no model translates fails alone.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import grpc

from attendant_client.client import Client
from attendant_client.errors import (
    LANGUAGE_UNKNOWN,
    CallError,
    InvalidRequestError,
    NotFoundError,
    TextError,
)
from attendant_client.input_lines import Line
from attendant_client.language_flags import AUTO
from attendant_client.results import Translation

Translate = Callable[[Client, argparse.Namespace, Sequence[Line]], Sequence[Translation]]


@dataclass(frozen=True, slots=True, repr=False)
class DetectedTranslation(Translation):
    """The result of a line, with the tag of the language that was detected."""

    source_language: str = ""


@dataclass(frozen=True, slots=True)
class Untranslated:
    """The result of a line whose language is not known, or that no model translates."""

    error: TextError


def detects(arguments: argparse.Namespace) -> bool:
    """Whether the languages of the lines are detected."""
    return str(arguments.source_language).partition(":")[0] == AUTO


def translate_by_language(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line], translate: Translate
) -> list[Translation | Untranslated]:
    """Translate the lines of each language by calls of their own.

    Raises UnsupportedError if the server detects no languages.
    """
    found: dict[int, Translation | Untranslated] = {}
    groups: dict[str, list[Line]] = {}
    for line, language in zip(lines, _detected(client, arguments, lines), strict=True):
        if isinstance(language, TextError):
            found[line.number] = Untranslated(language)
        else:
            groups.setdefault(language, []).append(line)
    for language, group in groups.items():
        results: Sequence[Translation | Untranslated]
        try:
            translations = translate(client, _in(language, arguments), group)
            results = [_with_language(language, each) for each in translations]
        except (InvalidRequestError, NotFoundError) as error:
            results = [Untranslated(fault_of(language, error))] * len(group)
        found |= {line.number: each for line, each in zip(group, results, strict=True)}
    return [found[line.number] for line in lines]


def with_language_of(
    client: Client, arguments: argparse.Namespace, line: Line
) -> argparse.Namespace:
    """The options of the command with the language of a line; raises TextError without one."""
    [language] = _detected(client, arguments, [line])
    if isinstance(language, TextError):
        raise language
    return _in(language, arguments)


def fault_of(language: str, error: CallError) -> TextError:
    """The fault of a line in a language; raises the error if it is not about the language."""
    is_of_language = error.reason == LANGUAGE_UNKNOWN and "source_language" in error.reason_details
    if not is_of_language:
        raise error
    message = f"is in {language}: {error.message}"
    return TextError(message, error.code, request_id=error.request_id)


def _detected(
    client: Client, arguments: argparse.Namespace, lines: Sequence[Line]
) -> list[str | TextError]:
    """The tag of the language of each line, or its fault."""
    candidates = str(arguments.source_language).partition(":")[2]
    texts = [line.texts[0] for line in lines]
    found = client.detect_language(
        texts,
        languages=candidates.split(",") if candidates else (),
        request_id=arguments.request_id,
    )
    return [each.error or each.language or _unknown() for each in found]


def _with_language(language: str, result: Translation) -> DetectedTranslation:
    values = {each.name: getattr(result, each.name) for each in fields(result)}
    return DetectedTranslation(**values, source_language=language)


def _unknown() -> TextError:
    return TextError("the text shows no language", grpc.StatusCode.INVALID_ARGUMENT)


def _in(language: str, arguments: argparse.Namespace) -> argparse.Namespace:
    """The options of the command with this language."""
    return argparse.Namespace(**vars(arguments) | {"source_language": language})
