"""The form of JSON files in bundles: which fields, types, ranges and lengths they must have."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from attendant_export.bundle.manifest import BundleError

MAX_INTEGER = 2**53
"""Larger integers are not accepted as numbers, since floating-point numbers may not hold them."""


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one or more values of the same form."""

    value: "Form"


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object of any fields, whose values have the same form."""

    value: "Form"


@dataclass(frozen=True, slots=True)
class Columns:
    """An object of lists of equal length."""

    lists: dict[str, "Form"]


Form: TypeAlias = type | range | list["Form"] | dict[str, "Form"] | ListOf | MapOf | Columns
"""`str` or `float`; the range of an integer; the forms of all values of a list; or the required
fields of an object, which may have more fields."""


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a bundle. Raises BundleError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON in UTF-8: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path} is not a JSON object")
    return content


def check_form(path: Path, content: dict[str, Any], form: Form) -> None:
    """Raise BundleError that names the file and its first value that does not have the form."""
    if problem := next(_problems("", content, form), None):
        raise BundleError(f"{path}: {problem}")


def _problems(name: str, value: Any, form: Form) -> Iterator[str]:
    if isinstance(form, type | range):
        if not _is_valid(value, form):
            yield f"{name} must be {_description(form)}"
    elif isinstance(form, list | ListOf):
        yield from _list_problems(name, value, form)
    elif not isinstance(value, dict):
        yield f"{name} must be an object"
    elif isinstance(form, MapOf):
        yield from _field_problems(name, value, dict.fromkeys(value, form.value))
    elif isinstance(form, Columns):
        yield from _field_problems(name, value, form.lists)
        if len({len(value[column]) for column in form.lists}) > 1:
            yield f"{name}: {' and '.join(form.lists)} must have the same length"
    else:
        yield from _field_problems(name, value, form)


def _field_problems(name: str, value: dict[str, Any], form: dict[str, Form]) -> Iterator[str]:
    for field, part in form.items():
        path = f"{name}.{field}" if name else field
        if field not in value:
            yield f"{path} is missing"
        else:
            yield from _problems(path, value[field], part)


def _list_problems(name: str, value: Any, form: "list[Form] | ListOf") -> Iterator[str]:
    if not isinstance(value, list) or not (value or form == []):
        yield f"{name} must be a list that is not empty"
        return
    forms = form if isinstance(form, list) else [form.value] * len(value)
    if len(value) != len(forms):
        yield f"{name} must have {len(forms)} values, not {len(value)}"
    for i, (each, part) in enumerate(zip(value, forms, strict=False)):
        yield from _problems(f"{name}[{i}]", each, part)


def _is_valid(value: Any, form: type | range) -> bool:
    if isinstance(form, range):
        return type(value) is int and value in form
    if form is str:  # JSON can state lone surrogates, which are no valid Unicode.
        return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)
    return isinstance(value, float) or (type(value) is int and abs(value) <= MAX_INTEGER)


def _description(form: type | range) -> str:
    if isinstance(form, range):
        return f"an integer from {form.start} to {form.stop - 1}"
    return "valid Unicode text" if form is str else "a number"
