"""Ranges of numbers: types of command-line arguments, and checks of options."""

import math
from argparse import ArgumentTypeError
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that an option may have. Calling it reads one from a text, as argparse does."""

    kind: type[int] | type[float]
    least: float
    most: float = math.inf
    limits: str = ""
    """The limits in words, such as "of at least 1"."""
    excludes: tuple[float, ...] = ()
    """Limits that are themselves out of the range."""

    def __str__(self) -> str:
        return f"{'an integer' if self.kind is int else 'a number'} {self.limits}"

    def __contains__(self, value: float) -> bool:
        is_kind = self.kind is float or isinstance(value, int)
        return is_kind and self.least <= value <= self.most and value not in self.excludes

    def __call__(self, text: str) -> Any:
        """The number in ``text``. Raises ArgumentTypeError that names the range."""
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan  # In no range.
        if value not in self:
            raise ArgumentTypeError(f"{text} is not {self}")
        return value


def whole(least: int, most: int | None = None) -> Range:
    """The integers from ``least`` to ``most``."""
    if most is None:
        return Range(int, least, limits=f"of at least {least}")
    return Range(int, least, most, f"from {least} to {most}")


positive = Range(float, 0, math.inf, "above 0", excludes=(0, math.inf))
share = Range(float, 0, 1, "from 0 to 1")
share_below_one = Range(float, 0, 1, "from 0 to below 1", excludes=(1,))
