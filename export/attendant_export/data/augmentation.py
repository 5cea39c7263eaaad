"""Changed copies of sentence pairs, so that a model learns input that its data lack.

Text that people type has no final punctuation, no capitals, or names and numbers of its own.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from attendant_export.data.changed_names import change_names
from attendant_export.data.changed_numbers import change_numbers

ALL = "all"
MAX_PHRASE_WORDS = 2
"""A source of at most so many words is a phrase: its translation ends as it does."""
_FINAL_PUNCTUATION = re.compile(r"\s*[.!?…]+$")
Change = Callable[[str, str, np.random.Generator], tuple[str, str]]


class Pairs(Protocol):
    """Sources and targets by their index; a list of pairs is one."""

    def __len__(self) -> int:
        """The number of pairs."""

    def __getitem__(self, index: int, /) -> tuple[str, str]:
        """Source and target of a pair."""


def without_final_punctuation(text: str) -> str:
    """The text without the punctuation at its end, or all of it if it is only punctuation."""
    return _FINAL_PUNCTUATION.sub("", text) or text


def casual_form(text: str) -> str:
    """The text in lower case without final punctuation, as people type it in a hurry."""
    return without_final_punctuation(text).lower()


def drop_final_punctuation(source: str, target: str, _: np.random.Generator) -> tuple[str, str]:
    """The source without its final punctuation; the target keeps its own unless it is a phrase."""
    bare = without_final_punctuation(source)
    is_phrase = bare != source and len(bare.split()) <= MAX_PHRASE_WORDS
    return bare, without_final_punctuation(target) if is_phrase else target


def lower_case(source: str, target: str, _: np.random.Generator) -> tuple[str, str]:
    """The source in lower case; the target keeps its capitals, which its reader expects."""
    return source.lower(), target


def upper_case(source: str, target: str, _: np.random.Generator) -> tuple[str, str]:
    """The source in upper case; the target keeps its small letters, which are easier to read."""
    return source.upper(), target


def lower_first(source: str, target: str, _: np.random.Generator) -> tuple[str, str]:
    """The source with a small first letter; the target keeps its capital."""
    return source[:1].lower() + source[1:], target


CHANGES: dict[str, tuple[Change, float]] = {
    "numbers": (change_numbers, 0.5),
    "names": (change_names, 0.3),
    "no-final-punctuation": (drop_final_punctuation, 0.2),
    "lower-case": (lower_case, 0.12),
    "lower-first": (lower_first, 0.05),
    "upper-case": (upper_case, 0.03),
}
"""Each kind of change, in the order in which they are made, and its usual probability."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The probability of each kind of change of `CHANGES`, for each pair in each epoch."""

    probabilities: tuple[tuple[str, float], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.probabilities)

    def __str__(self) -> str:
        return ", ".join(f"{kind} {value:g}" for kind, value in self.probabilities)

    def changed(
        self, pairs: Pairs, rng: np.random.Generator
    ) -> Iterator[tuple[int, tuple[str, str]]]:
        """The changed pairs of an epoch with their index; all others stay as they are."""
        draws = rng.random((len(pairs), len(self.probabilities)))
        chosen = draws < [probability for _, probability in self.probabilities]
        for index in np.flatnonzero(chosen.any(axis=1)).tolist():
            pair = source, target = pairs[index]
            for (kind, _), is_chosen in zip(self.probabilities, chosen[index], strict=True):
                if is_chosen:
                    source, target = CHANGES[kind][0](source, target, rng)
            if (source, target) != pair:
                yield index, (source, target)


NO_AUGMENTATION = Augmentation()


def parse_augmentation(texts: Sequence[str]) -> Augmentation:
    """Read ``KIND[:PROBABILITY]`` texts; later ones win, and ``all`` is every kind.

    Raises ValueError that names an unknown kind or a probability that is not from 0 to 1.
    """
    chosen: dict[str, float] = {}
    for text in texts:
        kind, colon, number = text.partition(":")
        if kind not in CHANGES and kind != ALL:
            raise ValueError(f"--augment {text}: {kind} is none of {', '.join([ALL, *CHANGES])}")
        for name in CHANGES if kind == ALL else [kind]:
            chosen[name] = _probability(text, number) if colon else CHANGES[name][1]
    return Augmentation(tuple((kind, chosen[kind]) for kind in CHANGES if chosen.get(kind)))


def _probability(text: str, number: str) -> float:
    try:
        probability = float(number)
    except ValueError:
        probability = -1.0
    if not 0 <= probability <= 1:
        raise ValueError(f"--augment {text}: want KIND[:PROBABILITY], a probability from 0 to 1")
    return probability
