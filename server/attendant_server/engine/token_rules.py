"""Token rules. A rule forbids some next tokens of a sentence or changes their likelihood.

A rule is a class with one method. To add a rule, write its class in a new module, its option in
`SearchOptions` and its line in `rules_of`.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.calls import SearchOptions
from attendant_server.engine.models import NO_TOKEN_BIAS, TokenBias
from attendant_server.engine.repeated_ngrams import NoRepeatedNgrams
from attendant_server.engine.row_bias import RowBias
from attendant_server.engine.search import Search

# Cached: sentences with the same tokens share one object, so `TokenBiases` can group their rows.
_forbidding = lru_cache(maxsize=32)(RowBias.forbidding)
_favouring = lru_cache(maxsize=1024)(RowBias.favouring)


class TokenRule(Protocol):
    """One policy for a sentence: adds values to the log-probabilities of its next tokens.

    Minus infinity forbids a token. Finite values become part of the log-probabilities that the
    search sums and reports. Values are added after the softmax (decision 0004), so the
    probabilities of other tokens do not change. A search drops a hypothesis if every next token is
    forbidden.

    Values must be known before the step. An option that depends on the model's log-probabilities,
    such as the repetition penalty, is applied by the step graph (`repetition_penalty`).
    """

    needs_tokens: ClassVar[bool]
    """Whether the rule reads the tokens of a hypothesis, not only their number.

    The sentence then runs in steps of one token. In a step of several tokens, the rule could not
    see the tokens that the graph chooses.
    """

    def row_bias(self, num_tokens: int, token_ids: Sequence[int]) -> RowBias | None:
        """The bias after a hypothesis of ``num_tokens`` tokens; None for no bias.

        ``token_ids`` are its tokens, without the begin token, or () unless ``needs_tokens``.
        """


class MinimumLength:
    """Forbids the end token after fewer than ``min_tokens`` tokens."""

    needs_tokens: ClassVar[bool] = False

    def __init__(self, min_tokens: int, eos_id: int) -> None:
        self._min_tokens, self._bias = min_tokens, _forbidding((eos_id,))

    def row_bias(self, num_tokens: int, token_ids: Sequence[int]) -> RowBias | None:
        """A bias of minus infinity for the end token while the hypothesis is too short."""
        return self._bias if num_tokens < self._min_tokens else None


class SuppressedTokens:
    """Forbids the same tokens at every position after the forced ones, or at the first one."""

    needs_tokens: ClassVar[bool] = False

    def __init__(
        self, token_ids: tuple[int, ...], num_forced: int = 0, is_for_next: bool = False
    ) -> None:
        """``is_for_next``: only the token right after the forced ones is none of these."""
        self._bias, self._num_forced = _forbidding(token_ids), num_forced
        self._is_for_next = is_for_next

    def row_bias(self, num_tokens: int, token_ids: Sequence[int]) -> RowBias | None:
        """A bias of minus infinity for each of the tokens."""
        if num_tokens < self._num_forced or (self._is_for_next and num_tokens > self._num_forced):
            return None
        return self._bias


class ForcedTokens:
    """Makes the first tokens of a hypothesis the likeliest ones.

    The search forces these tokens in any case. The rule is for steps of several tokens, in which
    each token follows the likeliest one before it.
    """

    needs_tokens: ClassVar[bool] = False

    def __init__(self, token_ids: tuple[int, ...]) -> None:
        self._biases = [_favouring(token_id) for token_id in token_ids]

    def row_bias(self, num_tokens: int, token_ids: Sequence[int]) -> RowBias | None:
        """A large bias for the forced token at this position."""
        return self._biases[num_tokens] if num_tokens < len(self._biases) else None


class BiasedPrefix:
    """Makes the next token of a prefix likelier as long as a hypothesis follows the prefix."""

    needs_tokens: ClassVar[bool] = True

    def __init__(self, token_ids: tuple[int, ...], bias: float, num_forced: int) -> None:
        """The prefix comes after ``num_forced`` tokens."""
        self._token_ids, self._num_forced = token_ids, num_forced
        self._biases = [_favouring(token_id, bias) for token_id in token_ids]

    def row_bias(self, num_tokens: int, token_ids: Sequence[int]) -> RowBias | None:
        """The bias for the next token of the prefix."""
        position = num_tokens - self._num_forced
        if not 0 <= position < len(self._token_ids):
            return None
        follows = tuple(token_ids[self._num_forced :]) == self._token_ids[:position]
        return self._biases[position] if follows else None


def rules_of(
    options: SearchOptions, begin_token_id: int | None, eos_id: int
) -> tuple[TokenRule, ...]:
    """The rules that ``options`` require; the begin token is that of `RowStart`."""
    rules: list[TokenRule] = []
    if options.forced_token_ids and options.width == 1:
        rules.append(ForcedTokens(options.forced_token_ids))
    if options.biased_token_ids:
        num_forced, bias = len(options.forced_token_ids), options.prefix_bias or 0.0
        rules.append(BiasedPrefix(options.biased_token_ids, bias, num_forced))
    if options.min_output_tokens:
        rules.append(MinimumLength(options.min_output_tokens, eos_id))
    if options.suppressed_token_ids:
        num_forced = len(options.forced_token_ids)
        rules.append(SuppressedTokens(options.suppressed_token_ids, num_forced))
    if options.suppressed_next_ids:
        num_forced = len(options.forced_token_ids)
        rules.append(SuppressedTokens(options.suppressed_next_ids, num_forced, is_for_next=True))
    if options.no_repeat_ngram_size:
        rules.append(NoRepeatedNgrams(options.no_repeat_ngram_size, begin_token_id))
    return tuple(rules)


RuledSentence: TypeAlias = tuple[int, Search, Sequence[TokenRule]]
"""The first row of a sentence, its search and its rules."""
_Biases: TypeAlias = tuple[list[tuple[int, RowBias]], dict[RowBias, list[int]]]
"""The biases of single rows, and the first rows of the sentences that share a bias."""


class TokenBiases:
    """The token biases of a batch. Equal biases of successive steps are the same objects."""

    def __init__(self, width: int) -> None:
        """The sentences of the batch have ``width`` rows each."""
        self._width = width
        self._last: list[_Biases] = []
        self._found: list[TokenBias] = []

    def of(self, sentences: Sequence[RuledSentence], num_tokens: int) -> list[TokenBias]:
        """The bias of all ``sentences`` for every token that a step decodes."""
        biases = [_biases(sentences, num_before) for num_before in range(num_tokens)]
        if biases != self._last:
            found = [_token_bias(biases[0], self._width)]
            for before, each in pairwise(biases):
                found.append(found[-1] if each == before else _token_bias(each, self._width))
            self._last, self._found = biases, found
        return self._found


def _biases(sentences: Iterable[RuledSentence], num_before: int) -> _Biases:
    """The biases for a token. ``num_before`` is the number of tokens of the step before it."""
    of_rows: list[tuple[int, RowBias]] = []
    of_sentences: dict[RowBias, list[int]] = {}
    for first_row, search, rules in sentences:
        num_tokens = search.num_tokens + num_before
        for rule in rules:
            if rule.needs_tokens:
                assert not num_before, "the rule cannot know the tokens of this step"
                for row, token_ids in enumerate(search.prefixes(), first_row):
                    if (bias := rule.row_bias(num_tokens, token_ids)) is not None:
                        of_rows.append((row, bias))
            elif (bias := rule.row_bias(num_tokens, ())) is not None:
                of_sentences.setdefault(bias, []).append(first_row)
    return of_rows, of_sentences


def _token_bias(biases: _Biases, width: int) -> TokenBias:
    of_rows, of_sentences = biases
    if not (of_rows or of_sentences):
        return NO_TOKEN_BIAS
    parts = [_joined(of_rows)] if of_rows else []
    for bias, first_rows in of_sentences.items():
        parts.append(_repeated(bias, np.add.outer(first_rows, np.arange(width)).ravel()))
    positions, values = zip(*parts, strict=True)
    return TokenBias(np.concatenate(positions), np.concatenate(values))


def _joined(of_rows: Sequence[tuple[int, RowBias]]) -> TokenBias:
    """The biases of single rows. Each row has its own, so nothing is grouped."""
    token_ids = np.concatenate([bias.token_ids for _, bias in of_rows])
    rows = np.repeat([row for row, _ in of_rows], [len(bias.token_ids) for _, bias in of_rows])
    values = np.concatenate([bias.values for _, bias in of_rows])
    return TokenBias(np.stack((rows, token_ids), axis=1), values)


def _repeated(bias: RowBias, rows: NDArray[np.int64]) -> TokenBias:
    """The same ``bias`` for each of ``rows``."""
    shape = len(rows), len(bias.token_ids)
    positions = np.empty((*shape, 2), dtype=np.int64)
    positions[:, :, 0], positions[:, :, 1] = rows[:, None], bias.token_ids
    values = np.broadcast_to(bias.values, shape)
    return TokenBias(positions.reshape(-1, 2), values.ravel())
