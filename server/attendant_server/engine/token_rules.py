"""Token rules: each forbids, or makes more or less likely, some next tokens of one sentence.

A rule is a class with one method. A new rule is such a class in a module of its own, its option in
`SearchOptions` and its line in `rules_of`.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.calls import SearchOptions
from attendant_server.engine.models import NO_TOKEN_BIAS, TokenBias
from attendant_server.engine.row_bias import RowBias
from attendant_server.engine.search import Search

# One object for the same tokens, so that `token_bias` handles the rows of many sentences at once.
_forbidding = lru_cache(maxsize=32)(RowBias.forbidding)


class TokenRule(Protocol):
    """One policy for the tokens of a sentence: adds values to the log-probabilities of next tokens.

    Minus infinity forbids a token. Finite values are part of the log-probabilities that the search
    adds up and reports. They are added after the softmax (decision 0004), so that all other tokens
    keep their probabilities. A search drops a hypothesis after which every token is forbidden.

    Values must be known before the step. A rule whose values depend on the model's, such as a
    repetition penalty that multiplies log-probabilities, needs a graph that outputs those of all
    tokens. Such a rule will have a property ``needs_log_probabilities``; it will choose the graph
    beside `Sentence.one_token_steps`, and the rule's method will be called in `RunningBatch.step`,
    between the graph and the searches, to choose the candidates of its rows.
    """

    needs_tokens: ClassVar[bool]
    """Whether the rule looks at the tokens of a hypothesis, and not at their number alone.

    The sentence then runs in steps of one token: in a run of several, the graph itself chooses the
    first ones, after the rule was asked.
    """

    def row_bias(self, num_tokens: int, token_ids: Sequence[int]) -> RowBias | None:
        """What to add after a hypothesis of ``num_tokens`` tokens; None for nothing.

        ``token_ids`` are its tokens, without the begin token, or () unless ``needs_tokens``.
        """


class MinimumLength:
    """Forbids the end token after less than ``min_tokens`` tokens."""

    needs_tokens: ClassVar[bool] = False

    def __init__(self, min_tokens: int, eos_id: int) -> None:
        self._min_tokens, self._bias = min_tokens, _forbidding((eos_id,))

    def row_bias(self, num_tokens: int, token_ids: Sequence[int]) -> RowBias | None:
        """Minus infinity for the end token while the hypothesis is too short."""
        return self._bias if num_tokens < self._min_tokens else None


class SuppressedTokens:
    """Forbids the same tokens everywhere."""

    needs_tokens: ClassVar[bool] = False

    def __init__(self, token_ids: tuple[int, ...]) -> None:
        self._bias = _forbidding(token_ids)

    def row_bias(self, num_tokens: int, token_ids: Sequence[int]) -> RowBias | None:
        """Minus infinity for each of the tokens."""
        return self._bias


def rules_of(options: SearchOptions, eos_id: int) -> tuple[TokenRule, ...]:
    """The rules that ``options`` ask for."""
    rules: list[TokenRule] = []
    if options.min_output_tokens:
        rules.append(MinimumLength(options.min_output_tokens, eos_id))
    if options.suppressed_token_ids:
        rules.append(SuppressedTokens(options.suppressed_token_ids))
    return tuple(rules)


def token_bias(
    sentences: Iterable[tuple[int, Search, Sequence[TokenRule]]], width: int, num_before: int
) -> TokenBias:
    """What the rules of all ``sentences`` add to one of the tokens that a step decodes.

    Each sentence has its first row of ``width``, its search and its rules. ``num_before`` tokens of
    the step come before.
    """
    of_rows: dict[RowBias, list[int]] = {}
    of_sentences: dict[RowBias, list[int]] = {}
    for first_row, search, rules in sentences:
        num_tokens = search.num_tokens + num_before
        for rule in rules:
            if rule.needs_tokens:
                assert not num_before, "the rule cannot know the tokens of this step"
                for row, token_ids in enumerate(search.prefixes(), first_row):
                    if (bias := rule.row_bias(num_tokens, token_ids)) is not None:
                        of_rows.setdefault(bias, []).append(row)
            elif (bias := rule.row_bias(num_tokens, ())) is not None:
                of_sentences.setdefault(bias, []).append(first_row)
    if not (of_rows or of_sentences):
        return NO_TOKEN_BIAS
    parts = [_repeated(bias, np.array(rows)) for bias, rows in of_rows.items()]
    for bias, first_rows in of_sentences.items():
        parts.append(_repeated(bias, np.add.outer(first_rows, np.arange(width)).ravel()))
    positions, values = zip(*parts, strict=True)
    return TokenBias(np.concatenate(positions), np.concatenate(values))


def _repeated(bias: RowBias, rows: NDArray[np.int64]) -> TokenBias:
    """The same ``bias`` for each of ``rows``."""
    shape = len(rows), len(bias.token_ids)
    positions = np.empty((*shape, 2), dtype=np.int64)
    positions[:, :, 0], positions[:, :, 1] = rows[:, None], bias.token_ids
    values = np.broadcast_to(bias.values, shape)
    return TokenBias(positions.reshape(-1, 2), values.ravel())
