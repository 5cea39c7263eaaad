"""The text of a continuation: decoded after its prompt, and cut before a stop text."""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from attendant_server.engine.calls import Stops, TokenIds
from attendant_server.tokenizer import TextTokenizer, TokenizerError

NUM_CONTEXT_TOKENS = 4
"""Last tokens of a prompt that are decoded with a continuation. A character has at most four."""


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


class ContinuationWriter:
    """Writes the continuations of one prompt. Safe to use from several threads."""

    def __init__(
        self, tokenizer: TextTokenizer, prompt_ids: Sequence[int], stop_texts: StopTexts
    ) -> None:
        """Raises TokenizerError."""
        self._tokenizer, self._stop_texts = tokenizer, stop_texts
        # Where a word begins, a decoder may leave out a space before the first token of a text.
        self._context = self._last_plain(prompt_ids, NUM_CONTEXT_TOKENS)
        self._before = tokenizer.decode(self._context)
        self._num_last_tokens = stop_texts.num_bytes + NUM_CONTEXT_TOKENS
        """Last tokens that write the longest stop text, since each writes a byte at least."""

    @property
    def stops(self) -> Stops | None:
        """What ends a continuation in the engine; None without stop texts."""
        return self._has_stopped if self._stop_texts.num_bytes else None

    def written(self, token_ids: Sequence[int]) -> CutText:
        """The text of a whole continuation; raises TokenizerError."""
        return self._stop_texts.cut(self._decoded(token_ids))

    def settled(self, token_ids: Sequence[int]) -> str:
        """The text that every continuation with these first tokens begins with.

        Raises TokenizerError.
        """
        text = self._tokenizer.decode_settled([*self._context, *token_ids])
        if not text.startswith(self._before):
            return ""
        return self._stop_texts.settled(text[len(self._before) :])

    def _has_stopped(self, token_ids: TokenIds) -> bool:
        """Whether a continuation has a stop text, if it had none before its last token."""
        try:
            if len(token_ids) <= self._num_last_tokens:
                text = self._decoded(token_ids)
            else:
                last = self._last_plain(token_ids, self._num_last_tokens)
                text = self._tokenizer.decode(last)
        except TokenizerError:  # the call fails when the whole continuation is decoded
            return False
        return bool(self._stop_texts.cut(text).stop_text)

    def _decoded(self, token_ids: Sequence[int]) -> str:
        text = self._tokenizer.decode([*self._context, *token_ids])
        if text.startswith(self._before):
            return text[len(self._before) :]
        # The end of a truncated prompt may be a part of a character, which the tokens complete.
        return self._tokenizer.decode(token_ids)

    def _last_plain(self, token_ids: Sequence[int], number: int) -> list[int]:
        plain = filter(self._tokenizer.is_plain, reversed(token_ids))
        return list(islice(plain, number))[::-1]
