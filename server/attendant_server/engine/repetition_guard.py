"""The repetition guard: keeps hypotheses from repeating a phrase over and over."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from attendant_server.engine.greedy_search import GreedySearch
from attendant_server.engine.search import Search

MAX_PHRASE_TOKENS = 32
MIN_OCCURRENCES = 3
"""Occurrences in a row of a phrase in a loop, unless the source repeats itself."""
MIN_REPEATED_TOKENS = 4
"""Repeated tokens, without the first phrase, of a loop that ends its hypothesis. A short phrase
must come more often."""
MAX_REWINDS = 8
"""Loops of a sentence that the search backs out of. The next one ends it."""
CHECK_TOKENS = 8
"""A search is looked at after so many tokens, and at its end. All beginnings of its hypotheses are
looked at then, so the result is that of looking after each token."""


def num_repeated(token_ids: Sequence[int], phrase_tokens: int) -> int:
    """Number of tokens at the end that equal the token ``phrase_tokens`` places before each."""
    i = len(token_ids) - 1
    while i >= phrase_tokens and token_ids[i] == token_ids[i - phrase_tokens]:
        i -= 1
    return len(token_ids) - 1 - i


def _phrase_lengths(token_ids: Sequence[int]) -> list[int]:
    """The lengths of phrases that the last token may repeat."""
    if not token_ids:
        return []
    last, recent = token_ids[-1], token_ids[-MAX_PHRASE_TOKENS - 1 : -1]
    return [n for n, token_id in enumerate(reversed(recent), 1) if token_id == last]


def loop_start(
    token_ids: Sequence[int], min_occurrences: int = MIN_OCCURRENCES, min_repeated: int = 0
) -> int | None:
    """Where the second occurrence of a phrase begins that is repeated up to the end.

    None if the tokens do not end in a loop: at least ``min_occurrences`` of the phrase, and at
    least ``min_repeated`` tokens after the first one.
    """
    longest = 0
    for phrase_tokens in _phrase_lengths(token_ids):
        repeated = num_repeated(token_ids, phrase_tokens)
        if repeated >= max((min_occurrences - 1) * phrase_tokens, min_repeated):
            longest = max(longest, repeated)
    return len(token_ids) - longest if longest else None


def num_settled(token_ids: Sequence[int]) -> int:
    """Length of the longest prefix that no later loop can shorten."""
    repeated = (num_repeated(token_ids, n) for n in _phrase_lengths(token_ids))
    return len(token_ids) - max(repeated, default=0)


def least_occurrences(given: Sequence[int]) -> int:
    """How many times a phrase must come in a row to be a loop, by the tokens that a caller gave.

    The translation of a text that has a phrase several times in a row may have one, too, up to
    twice as often. The same holds for the words after a prefix.
    """
    most = 1
    for phrase_tokens in range(1, min(MAX_PHRASE_TOKENS, len(given) // MIN_OCCURRENCES) + 1):
        run = 0
        for token_id, earlier in zip(given[phrase_tokens:], given, strict=False):
            run = run + 1 if token_id == earlier else 0
            most = max(most, 1 + run // phrase_tokens)
    return MIN_OCCURRENCES if most < MIN_OCCURRENCES else 2 * most + 1


class Rewind(NamedTuple):
    """A loop that a search backs out of."""

    num_tokens: int
    """The tokens that the hypothesis keeps."""
    token_id: int
    """The token that must not follow them again."""


class RepetitionGuard:
    """Watches the search of one sentence."""

    def __init__(
        self,
        source: Sequence[int],
        min_output_tokens: int,
        forced: Sequence[int] = (),
        is_streamed: bool = False,
    ) -> None:
        """``source`` are the tokens of the sentence, ``forced`` those that hypotheses begin with.

        Forced tokens are never taken back, and no search is ended with fewer than
        ``min_output_tokens``. The search of a stream is looked at after each step, since its tokens
        cannot be taken back.
        """
        self._source, self._forced, self._min_output_tokens = source, forced, min_output_tokens
        self._num_kept = len(forced)
        """First tokens that are never taken back."""
        self._num_rewinds_left = MAX_REWINDS
        self._num_checked, self._interval = 0, 1 if is_streamed else CHECK_TOKENS
        self.next_check = self._interval
        """Number of tokens from which on `check` has to be called."""

    def check(self, search: Search, can_rewind: bool) -> Rewind | None:
        """Back out of a loop, or end the hypotheses that are in one.

        With ``can_rewind``, a greedy search is rewound to the end of the first occurrence of the
        phrase; returns what must not follow there again. Other hypotheses end there.
        """
        # The last token of a finished search, such as EOS, ends no loop.
        first, last = self._num_checked + 1, search.num_tokens - search.is_finished
        self._num_checked, self.next_check = last, last + self._interval
        if search.is_finished and search.width > 1:
            return None
        # Not for samples: what is drawn next depends on how many tokens were drawn, and therefore
        # on the times at which the search is looked at.
        if can_rewind and self._num_rewinds_left and type(search) is GreedySearch:
            return self._rewind(search, first, last)
        loops = {}
        for row, token_ids in enumerate(search.prefixes()):
            start = self._first_loop(token_ids, first, last, MIN_REPEATED_TOKENS)
            if start is not None and start >= self._min_output_tokens:
                loops[row] = max(start, self._num_kept)
        if loops:
            search.end_loops(loops)
        return None

    def _rewind(self, search: GreedySearch, first: int, last: int) -> Rewind | None:
        [token_ids] = search.prefixes()
        start = self._first_loop(token_ids, first, last)
        if start is None:
            return None
        # Tokens before an earlier rewind may have been streamed.
        start = max(start, self._num_kept)
        rewind = Rewind(start, token_ids[start])
        search.rewind(start)
        self._num_rewinds_left -= 1
        self._num_kept = self._num_checked = start
        self.next_check = start + self._interval
        return rewind

    def _first_loop(
        self, token_ids: Sequence[int], first: int, last: int, min_repeated: int = 0
    ) -> int | None:
        """Where the first loop begins that ends after ``first`` to ``last`` tokens."""
        for length in range(max(first, self._num_kept + 1), last + 1):
            before = token_ids[max(0, length - 1 - MAX_PHRASE_TOKENS) : length - 1]
            if token_ids[length - 1] not in before:
                continue
            start = loop_start(token_ids[:length], MIN_OCCURRENCES, min_repeated)
            if start is not None and self._least_occurrences > MIN_OCCURRENCES:
                start = loop_start(token_ids[:length], self._least_occurrences, min_repeated)
            if start is not None:
                return start
        return None

    @cached_property
    def _least_occurrences(self) -> int:
        return max(map(least_occurrences, (self._source, self._forced)))
