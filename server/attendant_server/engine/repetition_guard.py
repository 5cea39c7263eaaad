"""The repetition guard: ends hypotheses that repeat a phrase over and over."""

from collections.abc import Sequence

from attendant_server.engine.search import Search

MAX_PHRASE_TOKENS = 32
MIN_REPEATED_TOKENS = 4
"""Repeated tokens, without the first phrase, of a loop. A short phrase must come more often."""
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


def loop_start(token_ids: Sequence[int]) -> int | None:
    """Where the second occurrence of a phrase begins that is repeated up to the end.

    None if the tokens do not end in a loop: at least three occurrences of the phrase, and at least
    ``MIN_REPEATED_TOKENS`` after the first one.
    """
    longest = 0
    for phrase_tokens in _phrase_lengths(token_ids):
        repeated = num_repeated(token_ids, phrase_tokens)
        if repeated >= max(2 * phrase_tokens, MIN_REPEATED_TOKENS):
            longest = max(longest, repeated)
    return len(token_ids) - longest if longest else None


def num_settled(token_ids: Sequence[int]) -> int:
    """Length of the longest prefix that no later loop can shorten."""
    repeated = (num_repeated(token_ids, n) for n in _phrase_lengths(token_ids))
    return len(token_ids) - max(repeated, default=0)


def repeats_itself(source: Sequence[int]) -> bool:
    """Whether a text has a phrase three times in a row, which its translation may have, too."""
    for phrase_tokens in range(1, min(MAX_PHRASE_TOKENS, len(source) // 3) + 1):
        run = 0
        for token_id, earlier in zip(source[phrase_tokens:], source, strict=False):
            run = run + 1 if token_id == earlier else 0
            if run >= 2 * phrase_tokens:
                return True
    return False


class RepetitionGuard:
    """Watches the search of one sentence."""

    def __init__(
        self, source: Sequence[int], min_output_tokens: int, is_streamed: bool = False
    ) -> None:
        """``source`` are the tokens of the sentence. A loop within it is no reason to end a search,
        nor is one that leaves fewer than ``min_output_tokens``. The search of a stream is looked at
        after each step, since its tokens cannot be taken back."""
        self._source, self._min_output_tokens = source, min_output_tokens
        self._num_checked, self._interval = 0, 1 if is_streamed else CHECK_TOKENS
        self.next_check = self._interval
        """Number of tokens from which on `check` has to be called."""

    def check(self, search: Search) -> None:
        """End the hypotheses that are in a loop, after the first occurrence of the phrase."""
        # The last token of a finished search, such as EOS, ends no loop.
        first, last = self._num_checked + 1, search.num_tokens - search.is_finished
        self._num_checked, self.next_check = last, last + self._interval
        if search.is_finished and search.width > 1:
            return
        loops = {}
        for row, token_ids in enumerate(search.prefixes()):
            start = _first_loop(token_ids, first, last)
            if start is not None and start >= self._min_output_tokens:
                loops[row] = start
        if loops and not repeats_itself(self._source):
            search.end_loops(loops)


def _first_loop(token_ids: Sequence[int], first: int, last: int) -> int | None:
    """Where the first loop begins that ends after ``first`` to ``last`` tokens."""
    for length in range(first, last + 1):
        if token_ids[length - 1] in token_ids[max(0, length - 1 - MAX_PHRASE_TOKENS) : length - 1]:
            start = loop_start(token_ids[:length])
            if start is not None:
                return start
    return None
