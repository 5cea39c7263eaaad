"""The text of a continuation: decoded after its prompt, and cut before a stop text."""

from collections.abc import Sequence
from itertools import islice

from attendant_server.application.growing_text import GrowingContinuation
from attendant_server.application.stop_texts import CutText, StopTexts
from attendant_server.engine.calls import Stops, TokenIds
from attendant_server.tokenizer import TextTokenizer, TokenizerError

NUM_CONTEXT_TOKENS = 4
"""Last tokens of a prompt that are decoded with a continuation. A character has at most four."""


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

    def growing(self) -> GrowingContinuation:
        """A continuation that is written while it is decoded."""
        return GrowingContinuation(self._tokenizer, self._context, self._before, self._stop_texts)

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
