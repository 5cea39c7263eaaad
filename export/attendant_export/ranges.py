"""Types of command-line arguments that are numbers within limits."""

import math
from argparse import ArgumentTypeError
from collections.abc import Callable


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of integers from ``least`` to ``most``."""
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise ArgumentTypeError(f"{text} is not an integer {limits}")
        return value

    return parse


def positive(text: str) -> float:
    """A finite number above 0."""
    return _number(text, lambda value: 0 < value < math.inf, "above 0")


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, lambda value: 0 <= value <= 1, "from 0 to 1")


def share_below_one(text: str) -> float:
    """A number from 0 to below 1."""
    return _number(text, lambda value: 0 <= value < 1, "from 0 to below 1")


def _number(text: str, is_allowed: Callable[[float], bool], limits: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan  # In no range.
    if not is_allowed(value):
        raise ArgumentTypeError(f"{text} is not a number {limits}")
    return value
