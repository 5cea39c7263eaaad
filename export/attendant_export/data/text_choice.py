"""The languages and controls of the texts of a file, as the options of commands state them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SOURCE_LANGUAGE, TARGET_LANGUAGE = "source-language", "target-language"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,99}")
"""Names of controls and of their values, as in manifests."""
TAG = re.compile(r"(?=.{1,100}$)[a-z0-9]{1,8}([-_][a-z0-9]{1,8})*", re.ASCII | re.IGNORECASE)
"""Tags of languages that requests can have."""
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
        languages = {
            SOURCE_LANGUAGE: self.source_language,
            TARGET_LANGUAGE: self.target_language,
        }
        given = [*((name, tag) for name, tag in languages.items() if tag), *self.controls]
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
    pairs = [setting.partition("=")[::2] for setting in settings]
    values = dict(pairs)
    tags = values.pop(SOURCE_LANGUAGE, ""), values.pop(TARGET_LANGUAGE, "")
    are_complete = all(value for _, value in pairs) and len({*dict(pairs)}) == len(pairs)
    if not are_complete or not all(map(NAME.fullmatch, (*values, *values.values()))):
        raise ValueError(
            f"{text}: want {WANTED}, each name once; a name is {SOURCE_LANGUAGE}, "
            f"{TARGET_LANGUAGE} or that of a control; names and values of controls match "
            f"{NAME.pattern}"
        )
    if not all(TAG.fullmatch(tag) for tag in tags if tag):
        raise ValueError(f"{text}: want language tags such as de or pt-BR")
    for name in values:
        if (meant := name.replace("_", "-")) in (SOURCE_LANGUAGE, TARGET_LANGUAGE):
            raise ValueError(f"{text}: {name} is no name of a control; {meant} is a language")
    return file, TextChoice(*tags, tuple(values.items()))


def chosen_controls(choices: Iterable[TextChoice]) -> dict[str, list[str]]:
    """The values of each control, in order of their first choice."""
    found: dict[str, dict[str, None]] = {}
    for choice in choices:
        for name, value in choice.controls:
            found.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in found.items()}
