"""The words of a text as a stream of ids: counted, and in parts without unknown words.

Works on arrays, not on tokenizers or models.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_export.data.word_tokenizer import UNKNOWN_ID

PART_WORDS = 200_000
"""Number of words of a text that are in memory together."""


@dataclass(frozen=True, slots=True)
class WordStream:
    """The ids of the words of all documents, mapped from a file."""

    ids: NDArray[np.integer]
    """Ids of words, `UNKNOWN_ID` for unknown ones, and ``vocab_size`` after each document."""
    vocab_size: int

    def counts(self) -> NDArray[np.int64]:
        """How often each word (vocab_size) occurs. Unknown words are not counted."""
        counts = np.zeros(self.vocab_size + 1, np.int64)
        for start in self.part_starts():
            part = self.ids[start : start + PART_WORDS]
            counts += np.bincount(part, minlength=self.vocab_size + 1)
        counts[UNKNOWN_ID] = 0
        return counts[: self.vocab_size]

    def part_starts(self) -> NDArray[np.int64]:
        """Where parts of `PART_WORDS` begin."""
        return np.arange(0, len(self.ids), PART_WORDS)

    def part(self, start: int) -> "WordPart":
        """The known words of the part that begins at ``start``."""
        ids = self.ids[start : start + PART_WORDS].astype(np.int64)
        is_end = ids == self.vocab_size
        is_known = (ids != UNKNOWN_ID) & ~is_end
        return WordPart(ids[is_known], np.cumsum(is_end)[is_known])

    def parts(self) -> Iterator["WordPart"]:
        """All parts in order. The numbers of their documents go on from part to part."""
        num_ended = 0
        for start in self.part_starts():
            part = self.part(start)
            yield WordPart(part.words, part.documents + num_ended)
            ends = self.ids[start : start + PART_WORDS] == self.vocab_size
            num_ended += int(np.count_nonzero(ends))


@dataclass(frozen=True, slots=True)
class WordPart:
    """Neighbouring words of a text."""

    words: NDArray[np.int64]  # (words) ids
    documents: NDArray[np.int64]  # (words) the number of the document of each, ascending

    def __len__(self) -> int:
        return len(self.words)

    def kept(self, is_kept: NDArray[np.bool_]) -> "WordPart":
        """The words for which ``is_kept`` (words) is true."""
        return WordPart(self.words[is_kept], self.documents[is_kept])

    def followed_by(self, other: "WordPart") -> "WordPart":
        """The words of this part and then those of another."""
        return WordPart(
            np.concatenate([self.words, other.words]),
            np.concatenate([self.documents, other.documents]),
        )
