"""What the subcommands of `attendant` print results with."""

import json
import sys
from typing import Any

import numpy as np

from attendant_client.errors import TextError


def prepare_output() -> None:
    """Let the standard output take any text.

    It is UTF-8 unless it is a terminal, whose encoding may lack characters: they are escaped.
    """
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def print_table(rows: list[list[str]]) -> None:
    """Print rows of cells in columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def json_text(value: object) -> str:
    """Return the JSON of a value on one line; errors of texts and arrays are values, too."""
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, TextError):
        return {"index": value.index, "code": value.code.name, "message": value.message}
    raise TypeError(f"{type(value).__name__} has no JSON")
