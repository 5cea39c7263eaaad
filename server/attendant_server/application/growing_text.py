"""Texts of growing tokens, of which only the last tokens are decoded again."""

from collections.abc import Sequence

from attendant_server.application.stop_texts import StopTexts
from attendant_server.tokenizer import TextTokenizer


class GrowingText:
    """The settled text of tokens that become more: what no further token changes.

    It decodes each time from the last place but one at which all text was settled. What a decoder
    does at the beginning of a text, such as leaving out a space, ends before the last such place,
    because the tokens between both have a text.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._start = self._end = 0
        self._before = ""
        """The text of the tokens from ``_start`` to ``_end``; all text up to there was settled."""
        self._num_given = 0
        """Characters after ``_before`` that were returned."""

    def appended(self, token_ids: Sequence[int]) -> str:
        """The settled text of all tokens so far, without what earlier calls returned.

        ``token_ids`` begin with those of the last call. Raises TokenizerError.
        """
        text, num_settled = self._tokenizer.decode_settled(token_ids[self._start :])
        known = len(self._before) + self._num_given
        added = text[known:]
        self._num_given += len(added)
        if num_settled:
            self._move(token_ids, self._start + num_settled)
        return added

    def _move(self, token_ids: Sequence[int], end: int) -> None:
        """Let all text up to a later ``end`` be settled, if there is any after the last place."""
        before = self._tokenizer.decode(token_ids[self._end : end])
        if before:
            self._start, self._end = self._end, end
            self._before, self._num_given = before, 0


class GrowingContinuation:
    """A continuation of a prompt while it becomes longer, as far as no stop text can begin."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        context: Sequence[int],
        before: str,
        stop_texts: StopTexts,
    ) -> None:
        """``context`` are the last tokens of the prompt, and ``before`` is their text."""
        self._tokenizer, self._stop_texts = tokenizer, stop_texts
        self._context, self._before = context, before
        self._text = GrowingText(tokenizer)
        self._held = ""
        """Text that was not returned yet."""
        self._is_stopped = False

    def appended(self, token_ids: Sequence[int]) -> str:
        """The text with which every continuation that begins with these tokens goes on.

        Without what earlier calls returned; ``token_ids`` begin with those of the last call. Raises
        TokenizerError.
        """
        if self._is_stopped:
            return ""
        self._held += self._text.appended([*self._context, *token_ids])
        if len(self._held) < len(self._before):
            return ""
        if self._held.startswith(self._before):
            self._held = self._held[len(self._before) :]
        else:  # the tokens complete a character of the prompt
            self._context, self._text = (), GrowingText(self._tokenizer)
            self._held = self._text.appended(token_ids)
        self._before = ""
        cut = self._stop_texts.cut(self._held)
        self._is_stopped = bool(cut.stop_text)
        settled = self._stop_texts.settled(self._held)
        self._held = self._held[len(settled) :]
        return settled
