"""Request checks that several methods share. Methods make them before any other work.

Every error names the field and the limit, and never repeats the caller's text.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from attendant_server.errors import CallTooLarge, InvalidRequest

TEXTS = "texts[{}]"
"""The name of one text of the field ``texts``, for messages; ``{}`` stands for its number."""
TOKEN_BYTES = 32
"""Approximate size of one token, with its text and numbers, in an answer."""
TOKEN_TEXT_BYTES = 16
"""Approximate size of the part of a translation that one token stands for."""
PLACE_BYTES = 24
"""Approximate size of the place of a word or sentence in an answer."""

KnownValue = TypeVar("KnownValue", bound=IntEnum)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The limits of the settings on every request, inclusive."""

    max_texts: int
    max_text_characters: int
    max_beam_size: int
    max_top_k: int
    max_response_bytes: int
    max_request_seconds: float

    def check_count(self, field: str, num_texts: int) -> None:
        """Raise InvalidRequest for no texts, CallTooLarge for too many."""
        if not num_texts:
            raise InvalidRequest(field, "at least 1, got 0")
        if num_texts > self.max_texts:
            problem = f"at most {self.max_texts}, got {num_texts}"
            raise CallTooLarge(field, problem, self.max_texts)

    def check_response(self, field: str, num_bytes: int) -> None:
        """Raise CallTooLarge if the answer could exceed the largest message."""
        if num_bytes > self.max_response_bytes:
            raise CallTooLarge(
                field,
                f"the answer could take {num_bytes} bytes, at most {self.max_response_bytes}; "
                "ask for less in one call",
            )

    def deadline(self, now: float, seconds_left: float | None) -> float:
        """The deadline of a call: the caller's, or the server's if it is earlier.

        ``now`` and the result are seconds on the engine's clock. ``seconds_left`` is None for
        callers without a deadline.
        """
        if seconds_left is None:
            return now + self.max_request_seconds
        return now + min(seconds_left, self.max_request_seconds)


def check_range(field: str, value: int, low: int, high: int) -> None:
    """Raise InvalidRequest for a number outside ``low`` to ``high``, both inclusive."""
    if not low <= value <= high:
        raise InvalidRequest(field, f"must be between {low} and {high}, got {value}")


def known_value(field: str, number: int, default: KnownValue) -> KnownValue:
    """The enum value of a number, ``default`` for 0; raises InvalidRequest for unknown numbers."""
    if not number:
        return default
    try:
        return type(default)(number)
    except ValueError:
        raise InvalidRequest(field, f"has no value {number}") from None
