"""JSON for readable differences: short lines and no invisible characters."""

import json
import textwrap
import unicodedata
from typing import Any

MAX_LINE_LENGTH = 100
_READABLE_CATEGORIES = "LNPS"


def dumped(value: Any, indent: str = "") -> str:
    """JSON in which every part that fits is one line, and long lists of numbers are filled."""
    line = escaped(json.dumps(value, ensure_ascii=False))
    if not isinstance(value, dict | list) or len(indent) + len(line) <= MAX_LINE_LENGTH:
        return line
    deeper = indent + " "
    if isinstance(value, dict):
        parts = [f"{_text(key)}: {dumped(part, deeper)}" for key, part in value.items()]
        return "{\n" + ",\n".join(deeper + part for part in parts) + f"\n{indent}}}"
    if all(isinstance(part, float) for part in value):
        return "[\n" + _filled(line[1:-1], deeper) + f"\n{indent}]"
    return "[\n" + ",\n".join(deeper + dumped(part, deeper) for part in value) + f"\n{indent}]"


def escaped(line: str) -> str:
    r"""A text with invisible characters written as ``\uXXXX``."""
    return "".join(map(_escaped_character, line))


def _text(text: str) -> str:
    return escaped(json.dumps(text, ensure_ascii=False))


def _filled(numbers: str, indent: str) -> str:
    return textwrap.fill(
        numbers,
        MAX_LINE_LENGTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _escaped_character(character: str) -> str:
    is_readable = character == " " or unicodedata.category(character)[0] in _READABLE_CATEGORIES
    return character if is_readable else json.dumps(character)[1:-1]
