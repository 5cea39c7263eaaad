"""The slots of one worker for one model that decodes: its running batches and who joins them."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from attendant_server.engine.cache_budget import CacheBudget
from attendant_server.engine.calls import Call
from attendant_server.engine.lanes import num_slots_of_lane
from attendant_server.engine.models import CachePool, EncodedSource, TranslationModel
from attendant_server.engine.running_batch import RunningBatch, Sentence

BatchKey: TypeAlias = tuple[str, int, bool, int]
"""Name of the step graph and width of the sentences of a `RunningBatch`, whether they are in the
light lane, and the number of candidates that they need."""
Encoded: TypeAlias = deque[tuple[Sentence, EncodedSource]]

MAX_OVERTAKING = 8
"""Light sentences, for each slot, that may join one after the other while a heavy one waits."""


class Slots:
    """The sentences that a worker decodes, and the encoded sentences that wait for slots.

    Without lanes, all sentences are in the same batches as heavy ones.
    """

    num_rows = 0
    """Rows in use. Any thread may read it."""
    num_sentences = 0
    """Slots in use. Any thread may read it."""

    def __init__(
        self,
        model: TranslationModel,
        max_rows: int,
        max_sentences: int,
        budget: CacheBudget,
        pool: CachePool,
        on_joined: Callable[[Iterable[Call[Any]]], None],
        on_failed: Callable[[Iterable[Call[Any]]], None],
    ) -> None:
        """``on_joined`` receives the calls of sentences that leave the encoded ones.

        ``on_failed`` receives the calls of sentences for which caches could not be allocated.
        """
        self.max_rows, self.max_sentences = max_rows, max_sentences
        self._model, self._budget, self._pool = model, budget, pool
        self._on_joined, self._on_failed = on_joined, on_failed
        self.batches: dict[BatchKey, RunningBatch] = {}
        self.encoded: tuple[Encoded, Encoded] = deque(), deque()
        """Encoded sentences that wait for rows: of heavy or all callers, and of light ones."""
        self._num_overtaking = 0
        """Light sentences that have joined since the last heavy one, while another one waited."""

    @property
    def num_encoded(self) -> int:
        """Encoded sentences that wait for rows. Any thread."""
        return len(self.encoded[False]) + len(self.encoded[True])

    def count(self) -> None:
        """Update the counts, after sentences have left their batches."""
        batches = self.batches.values()
        self.num_rows = sum([batch.num_rows for batch in batches])
        self.num_sentences = sum([len(batch.sentences) for batch in batches])

    def free(self, is_light: bool | None) -> tuple[int, int]:
        """Slots and rows that may be taken: all free ones, or those that are free for a lane."""
        num_slots = self.max_sentences - self.num_sentences
        num_rows = self.max_rows - self.num_rows
        if is_light is None:
            return num_slots, num_rows
        own = [batch for key, batch in self.batches.items() if key[2] is is_light]
        own_rows = sum(batch.num_rows for batch in own)
        lane_slots = num_slots_of_lane(self.max_sentences) - sum(len(b.sentences) for b in own)
        lane_rows = num_slots_of_lane(self.max_rows) - own_rows
        encoded = self.encoded[is_light]
        if not own_rows and encoded:  # a single search may need all rows
            lane_rows = max(lane_rows, encoded[0][0].width)
        return min(num_slots, lane_slots), min(num_rows, lane_rows)

    def can_encode(self, is_light: bool | None) -> int:
        """Number of slots that the encoded sentences leave free; 0 if the next one cannot join."""
        encoded = self.encoded[is_light is True]
        num_slots, num_rows = self.free(is_light)
        if sum(sentence.width for sentence, _ in encoded) >= num_rows:
            return 0
        if encoded and not self._has_room(encoded[0][0], is_light):
            return 0
        return max(0, num_slots - len(encoded))

    def join(self, is_light: bool | None = None) -> bool:
        """Let encoded sentences join, in order, while slots, rows and cache memory suffice.

        Returns whether the next sentence waits for rows or memory.
        """
        encoded = self.encoded[is_light is True]
        num_slots, num_rows = self.free(is_light) if encoded else (0, 0)
        while encoded and num_slots > 0:
            sentence, source = encoded[0]
            if sentence.width > num_rows:
                return self.num_rows + sentence.width > self.max_rows
            if not self._has_room(sentence, is_light):
                return True
            num_slots, num_rows = num_slots - 1, num_rows - sentence.width
            try:
                self._batch_for(self._key_for(sentence, is_light)).join(sentence, source)
                self.num_rows += sentence.width
                self.num_sentences += 1
            except Exception:  # most likely out of memory for the caches of a new width
                self._on_failed([sentence.call])
            encoded.popleft()
            self._on_joined([sentence.call])
        return False

    def join_lanes(self) -> None:
        """Let sentences of both lanes join, light ones first.

        A light sentence that waits for rows or memory is not overtaken. A heavy one is overtaken by
        a limited number of light ones.
        """
        num_before = self.num_sentences
        if self._num_overtaking < MAX_OVERTAKING * self.max_sentences and self.join(True):
            return
        num_light = self.num_sentences - num_before
        self.join(False)
        is_heavy_waiting = self.encoded[False] and self.num_sentences == num_before + num_light
        self._num_overtaking = self._num_overtaking + num_light if is_heavy_waiting else 0

    def drop_abandoned(self, now: float, expire: Callable[[Iterable[Call[Any]]], None]) -> None:
        """Drop the sentences of abandoned calls, after ``expire`` has received these calls."""
        for batch in self.batches.values():
            unwanted = {s for s in batch.sentences if s.call.is_abandoned(now)}
            if unwanted:
                expire(sentence.call for sentence in unwanted)
                batch.drop(unwanted)
                self.count()
        for encoded in self.encoded:
            unwanted = {s for s, _ in encoded if s.call.is_abandoned(now)}
            if unwanted:
                expire(sentence.call for sentence in unwanted)
                kept = [each for each in encoded if each[0] not in unwanted]
                encoded.clear()
                encoded.extend(kept)

    def clear(self) -> list[Call[Any]]:
        """Drop all sentences; returns their calls."""
        calls: list[Call[Any]] = [s.call for b in self.batches.values() for s in b.sentences]
        for encoded in self.encoded:
            calls += [sentence.call for sentence, _ in encoded]
            encoded.clear()
        for batch in self.batches.values():
            batch.clear()
        self.count()
        return calls

    def _has_room(self, sentence: Sentence, is_light: bool | None) -> bool:
        """Whether the caches have room for ``sentence`` in its batch."""
        if self._budget.is_ample:
            return True
        running = {key: batch.sentences for key, batch in self.batches.items()}
        return self._budget.has_room(running, self._key_for(sentence, is_light), sentence)

    def _key_for(self, sentence: Sentence, is_light: bool | None) -> BatchKey:
        width = sentence.width
        step = self._model.step_for(width, sentence.one_token_steps)
        return step, width, is_light is True, sentence.search.num_candidates

    def _batch_for(self, key: BatchKey) -> RunningBatch:
        if key not in self.batches:
            step, width, _, num_candidates = key
            max_slots = min(self.max_rows // width, self.max_sentences)
            cache = self._model.new_cache(step, width, max_slots, self._pool)
            num_candidates = min(num_candidates, self._model.vocab_size)
            self.batches[key] = RunningBatch(width, max_slots, cache, num_candidates)
        return self.batches[key]
