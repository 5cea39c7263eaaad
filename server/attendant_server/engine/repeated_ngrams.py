"""The token rule against repeated n-grams, such as ``no_repeat_ngram_size`` of ``transformers``."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from attendant_server.engine.row_bias import RowBias


class NoRepeatedNgrams:
    """Forbids each token that would complete an n-gram which the hypothesis already has.

    The begin token, if there is one, is the first token of a hypothesis for this rule.
    """

    needs_tokens: ClassVar[bool] = True

    def __init__(self, size: int, begin_token_id: int | None) -> None:
        """``size`` is the number of tokens of an n-gram."""
        self._num_before = size - 1
        self._begin = () if begin_token_id is None else (begin_token_id,)

    def row_bias(self, num_tokens: int, token_ids: Sequence[int]) -> RowBias | None:
        """A bias of minus infinity for the last tokens of n-grams that begin like the next one."""
        tokens = [*self._begin, *token_ids]
        repeated = {tokens[i] for i in self._places(tokens)}
        return RowBias.forbidding(repeated) if repeated else None

    def _places(self, tokens: list[int]) -> Iterable[int]:
        """The places after an earlier occurrence of the last ``size - 1`` tokens."""
        num_before, num_tokens = self._num_before, len(tokens)
        if not num_before:
            return range(num_tokens)
        if num_tokens <= num_before:
            return ()
        last, beginning = tokens[-1], tokens[-num_before:]
        places, place = [], num_before - 1
        # `list.index` finds the few candidates without a step of Python for each token.
        while (place := tokens.index(last, place) + 1) < num_tokens:
            if tokens[place - num_before : place] == beginning:
                places.append(place)
        return places
