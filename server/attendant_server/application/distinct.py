"""Texts with the same tokens, which a call runs once, so that their results are the same."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Distinct(Generic[Key]):
    """Different keys, and the place of each original key among them."""

    keys: Sequence[Key]
    places: Sequence[int]


def distinct(keys: Iterable[Key]) -> Distinct[Key]:
    """The different keys in the order of their first occurrences."""
    numbers: dict[Key, int] = {}
    places = [numbers.setdefault(key, len(numbers)) for key in keys]
    return Distinct(list(numbers), places)
