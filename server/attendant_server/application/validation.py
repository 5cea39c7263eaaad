"""Checks of requests that several methods share, all of them made before any work.

Every failure names the field and the limit and never repeats what the caller sent.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

from attendant_server.errors import InvalidRequest

TEXTS = "texts[{}]"
"""The name of one text of the field ``texts`` in messages; ``{}`` stands for its number."""
TOKEN_BYTES = 32
"""About what one token with its text and numbers takes in an answer."""

KnownValue = TypeVar("KnownValue", bound=IntEnum)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits that the settings put on every request, inclusive."""

    max_texts: int
    max_text_characters: int
    max_beam_size: int
    max_top_k: int
    max_response_bytes: int
    max_request_seconds: float

    def check_count(self, field: str, num_texts: int) -> None:
        """Refuse no texts and too many."""
        if not num_texts:
            raise InvalidRequest(field, "at least 1, got 0")
        if num_texts > self.max_texts:
            raise InvalidRequest(field, f"at most {self.max_texts}, got {num_texts}")

    def check_characters(self, field: str, texts: Iterable[str]) -> None:
        """Refuse texts of too many characters; ``{}`` in ``field`` stands for a text's number."""
        for i, text in enumerate(texts):
            if len(text) > self.max_text_characters:
                raise InvalidRequest(
                    field.format(i),
                    f"at most {self.max_text_characters} characters, got {len(text)}",
                )

    def check_response(self, field: str, num_bytes: int) -> None:
        """Refuse a request whose answer could be too large a message."""
        if num_bytes > self.max_response_bytes:
            raise InvalidRequest(
                field,
                f"the answer could take {num_bytes} bytes, at most {self.max_response_bytes}; "
                "ask for less in one call",
            )

    def deadline(self, now: float, seconds_left: float | None) -> float:
        """When a call must be over: the caller's deadline, or the server's limit if it is earlier.

        ``seconds_left`` is None for callers without a deadline.
        """
        if seconds_left is None:
            return now + self.max_request_seconds
        return now + min(seconds_left, self.max_request_seconds)


def check_range(field: str, value: int, low: int, high: int) -> None:
    """Refuse a number outside of ``low`` to ``high``."""
    if not low <= value <= high:
        raise InvalidRequest(field, f"must be between {low} and {high}, got {value}")


def known_value(field: str, number: int, default: KnownValue) -> KnownValue:
    """The value that a number stands for, ``default`` for 0; refuses numbers without a value."""
    if not number:
        return default
    try:
        return type(default)(number)
    except ValueError:
        raise InvalidRequest(field, f"has no value {number}") from None
