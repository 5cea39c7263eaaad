"""The types of flags of `attendant`: numbers within their bounds."""

import argparse


def count(text: str) -> int:
    """Return a number of things, at least 1."""
    number = int(text)
    if not 1 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {2**32 - 1}")
    return number


def seconds(text: str) -> float:
    """Return a positive number of seconds."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return number
