"""The token rule against repeated n-grams, such as ``no_repeat_ngram_size`` of ``transformers``."""

from collections.abc import Sequence
from typing import ClassVar

from attendant_server.engine.row_bias import RowBias


class NoRepeatedNgrams:
    """Forbids each token that would complete an n-gram which the hypothesis already has.

    The begin token is the first token of a hypothesis for this rule.
    """

    needs_tokens: ClassVar[bool] = True

    def __init__(self, size: int, start_token_id: int) -> None:
        """``size`` is the number of tokens of an n-gram."""
        self._num_before, self._start_token_id = size - 1, start_token_id

    def row_bias(self, num_tokens: int, token_ids: Sequence[int]) -> RowBias | None:
        """A bias of minus infinity for the last tokens of n-grams that begin like the next one."""
        num_before, tokens = self._num_before, [self._start_token_id, *token_ids]
        beginning = tokens[len(tokens) - num_before :]
        repeated = {
            tokens[end]
            for end in range(num_before, len(tokens))
            # Most positions differ in the last token, which costs less than a slice to compare.
            if not num_before
            or (tokens[end - 1] == tokens[-1] and tokens[end - num_before : end] == beginning)
        }
        return RowBias.forbidding(repeated) if repeated else None
