"""Draws maps of attention weights in a terminal, with blocks of several shades or colours."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from attendant_client.attention_maps import AttentionMap

SHADES, ASCII_SHADES = " ░▒▓█", " .:*#"
COLOURS = (235, 17, 18, 19, 20, 26, 32, 38, 44, 50, 87, 159, 195, 231)
"""Colours of the 256 of terminals, from the smallest weight to the largest."""
MAX_ROW_LABEL, MAX_COLUMN_LABEL = 16, 12
RESET = "\x1b[0m"


def map_lines(
    drawn: AttentionMap, width: int, has_colour: bool, has_blocks: bool = True
) -> Iterator[str]:
    """The lines of a map, each at most ``width`` columns wide if that is enough for labels.

    Keys that do not fit beside the labels of the queries follow in further panels. Without
    ``has_blocks``, shades are ASCII characters.
    """
    rows = [_cut(label, MAX_ROW_LABEL) for label in drawn.queries]
    margin = max(map(_columns, rows)) + 1
    cell = 1 if margin + 2 * len(drawn.keys) > width and not _has_wide(drawn.keys) else 2
    most = max(1, (width - margin) // cell)
    largest = float(drawn.weights.max(initial=0)) or 1.0
    yield drawn.title
    for first in range(0, len(drawn.keys), most):
        keys, weights = drawn.keys[first : first + most], drawn.weights[:, first : first + most]
        yield ""
        for line in _header(keys, cell):
            yield f"{'':{margin}}{line}".rstrip()
        for label, row in zip(rows, weights, strict=True):
            padded = " " * (margin - 1 - _columns(label)) + label
            cells = _coloured(row / largest, cell) if has_colour else ""
            yield f"{padded} {cells or _shaded(row / largest, cell, has_blocks)}".rstrip()
    yield ""
    yield _legend(largest, has_colour, has_blocks)


def _header(keys: Sequence[str], cell: int) -> Iterator[str]:
    """The labels of the keys, written from top to bottom, at the bottom of the header."""
    labels = [_cut(key, MAX_COLUMN_LABEL) for key in keys]
    height = max(map(len, labels))
    for line in range(height):
        places = [line - height + len(label) for label in labels]
        found = (label[i] if i >= 0 else " " for label, i in zip(labels, places, strict=True))
        yield "".join(c + " " * (cell - _columns(c)) for c in found)


def _shaded(weights: NDArray[np.float32], cell: int, has_blocks: bool) -> str:
    shades = SHADES if has_blocks else ASCII_SHADES
    return "".join(shades[level] * cell for level in _levels(weights, len(shades)))


def _coloured(weights: NDArray[np.float32], cell: int) -> str:
    levels = _levels(weights, len(COLOURS))
    return "".join(f"\x1b[48;5;{COLOURS[level]}m{'':{cell}}" for level in levels) + RESET


def _levels(weights: NDArray[np.float32], num_levels: int) -> list[int]:
    """The level of each weight, which is between 0 and 1."""
    return np.rint(weights * (num_levels - 1)).astype(int).tolist()  # type: ignore[no-any-return]


def _legend(largest: float, has_colour: bool, has_blocks: bool) -> str:
    steps = np.linspace(0, 1, 14, dtype=np.float32)
    scale = _coloured(steps, 1) if has_colour else _shaded(steps, 1, has_blocks)
    return f"0 {scale} {largest:.2f}"


def _cut(label: str, most: int) -> str:
    """``label`` with at most ``most`` characters; a longer one ends with an ellipsis."""
    return label if len(label) <= most else f"{label[: most - 1]}…"


def _has_wide(labels: Sequence[str]) -> bool:
    return any(_columns(character) > 1 for label in labels for character in label)


def _columns(text: str) -> int:
    """Columns of a terminal that ``text`` takes."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)
