"""The choice of sentences that may run together within the limit of a worker's cache memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

from attendant_server.engine.calls import SearchTooLarge, TranslateCall
from attendant_server.engine.running_batch import Sentence

NeededBytes: TypeAlias = Callable[[int, int, int, int], int]
"""The method `TranslationModel.needed_cache_bytes`."""
ANY_LENGTH = 10**9
"""Longer than any row or source; the model replaces it by its own limits."""
Key = TypeVar("Key")
"""The key of a batch."""


def most_needed_bytes(needed_bytes: NeededBytes, max_rows: int, max_sentences: int) -> int:
    """Bytes of cache for all rows and all sources if each is as long as the model allows."""
    return needed_bytes(1, max_rows, ANY_LENGTH, 0) + needed_bytes(0, max_sentences, 0, ANY_LENGTH)


class CacheBudget:
    """Reserves cache memory for the greatest length of each running sentence.

    A row begins with the positions that its source fills, and can grow to the output limit. Each
    row of a batch then takes as much memory as the longest one. A running sentence therefore never
    lacks room later.
    """

    def __init__(
        self, max_bytes: int, max_rows: int, max_sentences: int, needed_bytes: NeededBytes
    ) -> None:
        """``max_bytes`` limits all batches of one worker together."""
        self.max_bytes = max_bytes
        self._needed_bytes = needed_bytes
        self.is_ample = most_needed_bytes(needed_bytes, max_rows, max_sentences) <= max_bytes
        """Whether the limit can never be exceeded."""

    def has_room(
        self, running: Mapping[Key, Sequence[Sentence]], key: Key, sentence: Sentence
    ) -> bool:
        """Whether ``sentence`` may join the batch ``key`` of the ``running`` batches."""
        reserved_bytes = self._reserved_bytes([*running.get(key, ()), sentence])
        for other_key, sentences in running.items():
            if other_key != key and sentences:
                reserved_bytes += self._reserved_bytes(sentences)
        return reserved_bytes <= self.max_bytes

    def _reserved_bytes(self, sentences: Sequence[Sentence]) -> int:
        longest_row = max([sentence.longest_row for sentence in sentences])
        longest_source = max([sentence.num_source_tokens for sentence in sentences])
        width = sentences[0].width
        return self._needed_bytes(width, len(sentences), longest_row, longest_source)

    def check(
        self, call: TranslateCall, source_lengths: Sequence[int], num_positions: Sequence[int]
    ) -> None:
        """Raise SearchTooLarge if some sources exceed the limit even when they run alone.

        ``num_positions`` are those of the `RowStart` of each source.
        """
        if self.is_ample:
            return
        width, longest = call.width, call.options.max_output_tokens + max(num_positions)
        if self._needed_bytes(width, 1, longest, max(source_lengths)) <= self.max_bytes:
            return
        problems: dict[int, str] = {}
        for i, num_source_tokens in enumerate(source_lengths):
            longest = call.options_for(i, num_source_tokens).max_output_tokens
            longest_row = num_positions[i] + longest
            needed_bytes = self._needed_bytes(width, 1, longest_row, num_source_tokens)
            if needed_bytes > self.max_bytes:
                problems[i] = (
                    f"{num_source_tokens} tokens, with a beam of {width} and at most {longest} "
                    f"output tokens, need {needed_bytes} bytes of caches; the limit is "
                    f"{self.max_bytes} (max_cache_bytes, divided by the number of workers)"
                )
        if problems:
            raise SearchTooLarge(problems)
