"""Replaces the numbers of a sentence pair by other numbers, the same on both sides.

Knows digits in any language, and the number words of English and German up to 99.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_TOKEN = re.compile(
    r"(?<![\d])(?<!\d[.,:])\b"
    r"(?:(?P<hours>\d{1,2})(?P<colon>[:.])(?P<minutes>\d{2})"
    r"|(?P<digits>\d{1,4})(?P<ordinal>st|nd|rd|th)?"
    r"|(?P<word>[a-zäöüß]+(?:-[a-z]+)?))\b(?![.,:]\d)",
    re.IGNORECASE,
)
_ORDINAL_DOT = re.compile(r"\. ?[A-ZÄÖÜ]\w")
_WORDS_BELOW_20 = {
    "english": "two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen",
    "german": "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn "
    "fünfzehn sechzehn siebzehn achtzehn neunzehn",
}
_WORDS_OF_TENS = {
    "english": "twenty thirty forty fifty sixty seventy eighty ninety",
    "german": "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig",
}


def _number_words() -> dict[str, int]:
    """The values from 2 to 99 of number words of both languages."""
    words: dict[str, int] = {}
    for language, below_20 in _WORDS_BELOW_20.items():
        small = dict(enumerate(below_20.split(), start=2))
        units = {1: "one" if language == "english" else "ein"} | small
        words |= {word: value for value, word in small.items()}
        for tens, word in enumerate(_WORDS_OF_TENS[language].split(), start=2):
            words[word] = 10 * tens
            for unit in range(1, 10):
                english, german = f"{word}-{units[unit]}", f"{units[unit]}und{word}"
                words[english if language == "english" else german] = 10 * tens + unit
    return words


_WORDS = _number_words()


@dataclass(frozen=True, slots=True)
class _Number:
    """A number in a text: its place and its value, minutes after midnight for a time of day."""

    begin: int
    end: int
    value: int
    colon: str = ""
    """What a time has between hours and minutes; empty: no time."""
    is_ordinal: bool = False
    suffix: str = ""


def change_numbers(source: str, target: str, rng: np.random.Generator) -> tuple[str, str]:
    """The pair with other numbers in digits, if both sides have the same numbers from 2 on.

    Years, times of day and days of a month become others of their kind. 0 and 1 are never replaced
    and never inserted, because words agree with them in number.
    """
    sides = list(_numbers_of(source)), list(_numbers_of(target))
    values = [sorted((bool(n.colon), n.value) for n in numbers) for numbers in sides]
    if not values[0] or values[0] != values[1] or min(value for _, value in values[0]) < 2:
        return source, target
    days = {number.value for numbers in sides for number in numbers if number.is_ordinal}
    new = {
        (is_time, value): _another(is_time, value, value in days, rng)
        for is_time, value in dict.fromkeys(values[0])
    }
    return _replaced(source, sides[0], new), _replaced(target, sides[1], new)


def _numbers_of(text: str) -> Iterator[_Number]:
    for found in _TOKEN.finditer(text):
        if found["hours"]:
            value = 60 * int(found["hours"]) + int(found["minutes"])
            yield _Number(*found.span(), value, found["colon"])
        elif found["digits"]:
            is_ordinal = bool(found["ordinal"] or _ORDINAL_DOT.match(text, found.end()))
            suffix = found["ordinal"] or ""
            yield _Number(*found.span(), int(found["digits"]), is_ordinal=is_ordinal, suffix=suffix)
        elif (value := _WORDS.get(found["word"].lower(), 0)) > 0:
            yield _Number(*found.span(), value)


def _another(is_time: bool, value: int, is_day: bool, rng: np.random.Generator) -> int:
    if is_time:
        return int(rng.integers(2, 24 * 60))
    if is_day:
        return int(rng.integers(2, 32))
    if 1000 <= value < 2100:
        return int(rng.integers(1000, 2100))
    # Two digits are the most frequent in text.
    limit = int(rng.choice([10, 100, 100, 100, 100, 1000, 1000, 10_000]))
    return int(rng.integers(max(2, limit // 10), limit))


def _replaced(text: str, numbers: list[_Number], new: dict[tuple[bool, int], int]) -> str:
    for number in reversed(numbers):
        value = new[bool(number.colon), number.value]
        shown = str(value)
        if number.colon:
            shown = f"{value // 60}{number.colon}{value % 60:02}"
        elif number.suffix:
            shown += _ordinal_suffix(value)
        text = text[: number.begin] + shown + text[number.end :]
    return text


def _ordinal_suffix(value: int) -> str:
    if value % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
