"""Languages and controls that a new vocabulary has tokens for, from the choices of files."""

from collections.abc import Callable, Sequence

from attendant.v1.bundle_pb2 import Control, ControlValue, Language, Manifest
from attendant_manifest.translation_rules import MAX_CONTROL_VALUES, MAX_CONTROLS

from attendant_export.data.text_choice import (
    SOURCE_LANGUAGE,
    TARGET_LANGUAGE,
    TextChoice,
    chosen_controls,
)
from attendant_export.runs.text_facts import new_facts

Choices = Sequence[TextChoice]


def choice_tokens(choices: Choices) -> list[str]:
    """The special tokens of the languages and controls of training files.

    Only target languages have tokens, and only if there are several. Raises ValueError if some
    files have a language and others have none, for a language in two spellings, and for more
    controls or values than a bundle may have.
    """
    _tags(SOURCE_LANGUAGE, [choice.source_language for choice in choices])
    targets = _tags(TARGET_LANGUAGE, [choice.target_language for choice in choices])
    tokens = [_token(TARGET_LANGUAGE, tag) for tag in targets] if len(targets) > 1 else []
    return tokens + [
        _token(name, value) for name, values in _controls(choices).items() for value in values
    ]


def facts_of_choices(choices: Choices, id_of: Callable[[str], int]) -> Manifest | None:
    """The facts of a model that is trained on files with these choices; None without any.

    ``id_of`` gives the ids of the `choice_tokens`, which stand before a source. The default of a
    control is the value of the first file, unless some file has none: then texts without it were
    trained on, too. Raises ValueError as `choice_tokens`.
    """
    if not any(choices):
        return None
    facts = new_facts()
    for tag in _tags(SOURCE_LANGUAGE, [choice.source_language for choice in choices]):
        facts.source_languages.append(Language(tag=tag))
    targets = _tags(TARGET_LANGUAGE, [choice.target_language for choice in choices])
    for tag in targets:
        ids = [id_of(_token(TARGET_LANGUAGE, tag))] if len(targets) > 1 else []
        facts.target_languages.append(Language(tag=tag, source_prefix_ids=ids))
    for name, values in _controls(choices).items():
        is_everywhere = all(name in dict(choice.controls) for choice in choices)
        control = Control(name=name, default_value=values[0] if is_everywhere else "")
        for value in values:
            token_id = id_of(_token(name, value))
            control.values.append(ControlValue(name=value, source_prefix_ids=[token_id]))
        facts.controls.append(control)
    return facts


def _token(name: str, value: str) -> str:
    return f"<{name}={value}>"


def _tags(name: str, tags: Sequence[str]) -> list[str]:
    """The distinct tags. Raises ValueError if only some files have one, or for two spellings."""
    if any(tags) and not all(tags):
        raise ValueError(f"{name}: want it for every file of training pairs or for none")
    distinct = list(dict.fromkeys(filter(None, tags)))
    first: dict[str, str] = {}
    for tag in distinct:
        if (other := first.setdefault(tag.lower(), tag)) != tag:
            raise ValueError(f"{name}: {other} and {tag} are the same language: want one spelling")
    return distinct


def _controls(choices: Choices) -> dict[str, list[str]]:
    """The values of each control. Raises ValueError for more than a bundle may have."""
    controls = chosen_controls(choices)
    _check_number("controls", len(controls), MAX_CONTROLS)
    for name, values in controls.items():
        _check_number(f"values of {name}", len(values), MAX_CONTROL_VALUES)
    return controls


def _check_number(what: str, number: int, most: int) -> None:
    if number > most:
        raise ValueError(f"the files of training pairs have {number} {what}, at most {most}")
