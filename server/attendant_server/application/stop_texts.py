"""Texts at which a continuation ends."""

from collections.abc import Sequence
from typing import NamedTuple


class CutText(NamedTuple):
    """A text before its first stop text."""

    text: str
    stop_text: str = ""
    """The stop text that followed, if any did."""


class StopTexts:
    """The stop texts of a call. Safe to use from several threads."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self.num_bytes = max((len(text.encode()) for text in texts), default=0)
        """Bytes of the longest one; 0 without stop texts."""

    def cut(self, text: str) -> CutText:
        """The text before the stop text that is complete first, and among these begins first.

        Whether the rest of the text is known yet does not matter, so streams cut at the same place.
        """
        found = [
            (place + len(stop), place, stop)
            for stop in self._texts
            if (place := text.find(stop)) >= 0
        ]
        if not found:
            return CutText(text)
        _, place, stop = min(found)
        return CutText(text[:place], stop)

    def settled(self, text: str) -> str:
        """The beginning of a growing text in which no stop text can begin any more."""
        text, stop = self.cut(text)
        return text if stop else text[: len(text) - self._num_open(text)]

    def _num_open(self, text: str) -> int:
        """Length of the longest end of the text with which a stop text begins."""
        lengths = (
            length
            for stop in self._texts
            for length in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:length])
        )
        return max(lengths, default=0)
