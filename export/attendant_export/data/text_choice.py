"""The languages and controls of the texts of a file, as the options of commands state them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

LANGUAGES = SOURCE_LANGUAGE, TARGET_LANGUAGE = "source-language", "target-language"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,99}")
"""Names of controls and of their values, as in manifests."""
TAG = re.compile(r"(?=.{1,100}$)[A-Za-z0-9]{1,8}([-_][A-Za-z0-9]{1,8})*")
"""Tags of languages that a server accepts in requests."""
WANTED = "FILE[;NAME=VALUE]..."


@dataclass(frozen=True, slots=True)
class TextChoice:
    """What a request would choose for the texts of a file; empty: the default of the model."""

    source_language: str = ""
    target_language: str = ""
    controls: tuple[tuple[str, str], ...] = ()
    """Names and values of controls."""

    def __bool__(self) -> bool:
        """Whether anything is chosen."""
        return self != NO_CHOICE

    def __str__(self) -> str:
        languages = zip(LANGUAGES, (self.source_language, self.target_language), strict=True)
        given = [*((name, tag) for name, tag in languages if tag), *self.controls]
        return ", ".join(f"{name}={value}" for name, value in given)


NO_CHOICE = TextChoice()


class ChosenFile(NamedTuple):
    """A file of pairs with their languages and controls."""

    path: Path
    choice: TextChoice = NO_CHOICE


def split_choice(text: str) -> tuple[str, TextChoice]:
    """The file and the choice of an argument ``FILE[;NAME=VALUE]...``.

    A name is ``source-language``, ``target-language`` or that of a control. Raises ValueError.
    """
    file, *settings = text.split(";")
    values = dict(setting.partition("=")[::2] for setting in settings)
    are_distinct = len(values) == len(settings)
    tags = {name: values.pop(name) for name in LANGUAGES if name in values}
    are_tags = all(map(TAG.fullmatch, tags.values()))
    if not (are_distinct and are_tags and all(map(NAME.fullmatch, (*values, *values.values())))):
        raise ValueError(
            f"{text}: want {WANTED}, each name once; a name is {' or '.join(LANGUAGES)}, with a "
            "tag such as de or pt-BR as its value, or that of a control; names and values of "
            f"controls match {NAME.pattern}"
        )
    for name in values:
        if (meant := name.replace("_", "-")) in LANGUAGES:
            raise ValueError(f"{text}: {name} is no name of a control; {meant} is a language")
    source, target = (tags.get(name, "") for name in LANGUAGES)
    return file, TextChoice(source, target, tuple(values.items()))


def chosen_controls(choices: Iterable[TextChoice]) -> dict[str, list[str]]:
    """The values of each control, in order of their first choice."""
    found: dict[str, dict[str, None]] = {}
    for choice in choices:
        for name, value in choice.controls:
            found.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in found.items()}
