"""Which sentence pairs are left out of a training, by their text or by their numbers of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_export.data.language_filter import EXTRA, is_in_language, is_installed

COPIES, DUPLICATES, LANGUAGES, RATIO = "copies", "duplicates", "languages", "length ratio"
"""The reasons for which a pair may be left out."""


@dataclass(frozen=True, slots=True)
class TextFilters:
    """What is left out by its text."""

    copies: bool = False
    """Whether pairs are left out whose source and target are the same."""
    duplicates: bool = False
    """Whether a pair is left out that is the same as an earlier one of its file or folder."""
    languages: tuple[str, str] | None = None
    """Languages of source and target. Pairs with a side in another language are left out."""

    def reason(self, source: str, target: str) -> str | None:
        """Why a pair is left out, or None. Does not look for duplicates."""
        if self.copies and source.strip() == target.strip():
            return COPIES
        if self.languages is not None:
            sides = zip((source, target), self.languages, strict=True)
            if not all(is_in_language(text, language) for text, language in sides):
                return LANGUAGES
        return None


NO_TEXT_FILTERS = TextFilters()


@dataclass(frozen=True, slots=True)
class LengthFilters:
    """What is left out by its numbers of tokens, of which the last is the end token."""

    max_tokens: int = 128
    """Limit of the tokens of each side, with the end token."""
    max_ratio: float | None = None
    """Limit of the tokens of the longer side for each token of the shorter, without end tokens."""

    def __post_init__(self) -> None:
        if self.max_ratio is not None and not self.max_ratio >= 1:
            raise ValueError(f"--max-length-ratio {self.max_ratio:g}: want a number of at least 1")

    @property
    def too_long(self) -> str:
        """What is wrong with a line of which a side exceeds ``max_tokens``."""
        return f"more than {self.max_tokens} tokens on a side"

    def are_too_long(
        self, sources: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether each pair of numbers of tokens exceeds ``max_tokens``."""
        return np.maximum(sources, targets) > self.max_tokens

    def exceed_ratio(
        self, sources: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether each pair of numbers of tokens exceeds ``max_ratio``."""
        if self.max_ratio is None:
            return np.zeros(len(sources), bool)
        longer, shorter = np.maximum(sources, targets) - 1, np.minimum(sources, targets) - 1
        return longer > self.max_ratio * shorter


def parse_text_filters(texts: Sequence[str]) -> TextFilters:
    """Read texts such as ``copies``, ``duplicates`` and ``languages:en-de``.

    Raises ValueError that names an unknown kind, bad languages or a missing library.
    """
    languages, kinds = None, set()
    for text in texts:
        kind, _, value = text.partition(":")
        if kind == LANGUAGES:
            languages = _languages(text, value)
        elif text in (COPIES, DUPLICATES):
            kinds.add(text)
        else:
            raise ValueError(
                f"--filter {text}: want {COPIES}, {DUPLICATES} or {LANGUAGES}:SOURCE-TARGET"
            )
    return TextFilters(COPIES in kinds, DUPLICATES in kinds, languages)


def _languages(text: str, value: str) -> tuple[str, str]:
    source, dash, target = value.partition("-")
    if not dash or not source or not target:
        raise ValueError(f"--filter {text}: want {LANGUAGES}:SOURCE-TARGET, such as en-de")
    if not is_installed():
        raise ValueError(f"--filter {text}: needs the extra {EXTRA}")
    for language in (source, target):
        try:
            is_in_language("", language)
        except ValueError as error:
            raise ValueError(f"--filter {text}: {error}") from error
    return source, target
