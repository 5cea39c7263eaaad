"""Step-level continuous batching for one translation model.

Every `advance` encodes a bounded number of waiting sources, lets encoded sentences join while rows
are free, and runs one step for all running rows, whatever their length or options. A step decodes
one token per row, or several in greedy search.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Self, TypeAlias

import numpy as np

from attendant_server.engine.admission import AdmissionQueue, QueuedText
from attendant_server.engine.cache_budget import CacheBudget
from attendant_server.engine.calls import Call, ScoreCall, TargetScore, TranslateCall
from attendant_server.engine.models import CachePool, EncodedSource, TranslationModel
from attendant_server.engine.reports import Observer, StepReport
from attendant_server.engine.running_batch import RunningBatch, Sentence
from attendant_server.engine.scheduler import Scheduler
from attendant_server.engine.search import new_search
from attendant_server.engine.token_rules import rules_of
from attendant_server.errors import ModelFailed

logger = logging.getLogger(__name__)

BatchKey: TypeAlias = tuple[str, int]
"""Name of the step graph and width of the sentences of a `RunningBatch`."""


@dataclass(frozen=True, slots=True)
class TranslationLimits:
    """Bounds of a translation scheduler."""

    max_rows: int
    """Hypotheses that one worker decodes in one step, over all sentences."""
    max_sentences: int
    """Sentences that one worker decodes together, if rows suffice."""
    max_queued_texts: int
    max_encode_tokens: int
    """Padded tokens encoded, and padded tokens scored, between two steps."""
    max_cache_bytes: int
    """Memory limit of one worker's caches."""
    spare_cache_bytes: int
    """Memory that one worker's caches may take beyond 1.5 times the need of its sentences."""


class TranslationScheduler(Scheduler):
    """The running sentences and the caches of one worker, and the queues of the model."""

    _queue: AdmissionQueue[TranslateCall]
    num_active = 0
    """Rows in use by this scheduler. Any thread may read it."""
    num_active_sentences = 0
    """Sentences that this scheduler decodes. Any thread may read it."""

    def __init__(
        self,
        name: str,
        model: TranslationModel,
        limits: TranslationLimits,
        observer: Observer,
        clock: Callable[[], float],
        sibling: Self | None = None,
    ) -> None:
        super().__init__(name, limits.max_queued_texts, observer, clock, sibling)
        self.max_rows, self.max_sentences = limits.max_rows, limits.max_sentences
        self._model, self._limits = model, limits
        self._encoded: deque[tuple[Sentence, EncodedSource]] = deque()
        self._batches: dict[BatchKey, RunningBatch] = {}
        self._budget = CacheBudget(
            limits.max_cache_bytes,
            limits.max_rows,
            limits.max_sentences,
            model.needed_cache_bytes,
        )
        self.pool: CachePool = model.new_cache_pool(
            limits.max_cache_bytes, limits.spare_cache_bytes
        )
        """The memory pool of this worker's caches."""
        self._pairs: AdmissionQueue[ScoreCall]
        self._pairs = sibling._pairs if sibling else AdmissionQueue(self._admission)

    @property
    def has_work(self) -> bool:
        """Whether anything runs here or waits for any worker."""
        return bool(self.num_active or self._encoded or len(self._queue) or len(self._pairs))

    def submit(self, call: Call[Any]) -> None:
        """Queue a `TranslateCall` or a `ScoreCall`; raises QueueFull. Any thread.

        Raises SearchTooLarge for texts whose caches can never fit, TypeError for other calls.
        """
        if isinstance(call, ScoreCall):
            self._enqueue(self._pairs, call, (max(map(len, pair)) for pair in call.pairs))
        elif isinstance(call, TranslateCall):
            assert call.options.beam_size <= self.max_rows
            lengths = [len(source) for source in call.sources]
            self._budget.check(call.options, lengths)
            self._enqueue(self._queue, call, lengths)
        else:
            raise TypeError(f"a translation model cannot run a {type(call).__name__}")

    def _advance(self, is_alone: bool) -> None:
        """Encode, admit, run one step of every batch, score."""
        self._encode()
        self._drop_abandoned()  # after encoding, which takes time: calls may have ended
        self._admit()
        self._step()
        self._score()

    def release_memory(self) -> None:
        """Release the memory of the caches and the working memory of the model's runs."""
        self.pool.release()
        self._model.release_memory()

    def _take_running(self) -> list[Call[Any]]:
        calls: list[Call[Any]] = [
            s.call for batch in self._batches.values() for s in batch.sentences
        ]
        calls += [sentence.call for sentence, _ in self._encoded]
        self._encoded.clear()
        for batch in self._batches.values():
            batch.clear()
        self._count_active()
        return calls

    def _take_waiting(self) -> list[Call[Any]]:
        pairs = self._pairs.take_all(self._clock())
        return super()._take_waiting() + [pair.call for pair in pairs]

    def _drop_abandoned(self) -> None:
        now = self._clock()
        for batch in self._batches.values():
            unwanted = {s for s in batch.sentences if s.call.is_abandoned(now)}
            if unwanted:
                self._expire(sentence.call for sentence in unwanted)
                batch.drop(unwanted)
                self._count_active()
        unwanted = {s for s, _ in self._encoded if s.call.is_abandoned(now)}
        if unwanted:
            self._expire(sentence.call for sentence in unwanted)
            self._encoded = deque((s, e) for s, e in self._encoded if s not in unwanted)

    def _count_active(self) -> None:
        """Update the counts of what runs, after sentences have left their batches."""
        batches = self._batches.values()
        self.num_active = sum([batch.num_rows for batch in batches])
        self.num_active_sentences = sum([len(batch.sentences) for batch in batches])

    def _encode(self) -> None:
        """Encode waiting sources together once the encoded ones cannot fill the free slots."""
        if not len(self._queue):
            return
        wanted_rows = sum(sentence.width for sentence, _ in self._encoded)
        if self.num_active + wanted_rows >= self.max_rows:
            return
        if self.num_active_sentences + len(self._encoded) >= self.max_sentences:
            return
        if self._encoded:
            first, _ = self._encoded[0]
            if not self._has_room(self._key_for(first), first):
                return
        share = self._share()
        if not share:
            return
        batch = self._take_similar(self._queue, self._limits.max_encode_tokens, share)
        if batch:
            lengths = [text.num_tokens for text in batch]
            for texts, encoded in self._run("encoder", batch, lengths, self._encoded_of):
                self._join_encoded(texts, encoded)

    def _encoded_of(self, texts: Sequence[QueuedText[TranslateCall]]) -> list[EncodedSource]:
        return self._model.encode([text.call.sources[text.index] for text in texts])

    def _share(self) -> int:
        """Waiting sentences that this worker may take for an equal load on all workers."""
        held = [
            scheduler.num_active_sentences + len(scheduler._encoded) for scheduler in self._siblings
        ]
        own = self.num_active_sentences + len(self._encoded)
        return max(0, ceil((len(self._queue) + sum(held)) / len(held)) - own)

    def _join_encoded(
        self, texts: Sequence[QueuedText[TranslateCall]], sources: list[EncodedSource]
    ) -> None:
        """Begin the searches of texts that have just been encoded."""
        now = self._clock()
        for text, source in zip(texts, sources, strict=True):
            text.call.timings.encoded = now
            self._encoded.append((self._sentence(text), source))

    def _sentence(self, text: QueuedText[TranslateCall]) -> Sentence:
        options = text.call.options.for_source(text.num_tokens)
        search = new_search(options, self._model.start_token_id, self._model.eos_id)
        rules = rules_of(options, self._model.start_token_id, self._model.eos_id)
        return Sentence(
            *(text.call, text.index, search, text.num_tokens, options.max_output_tokens, rules),
            options.repetition_penalty,
        )

    def _admit(self) -> None:
        """Let encoded sentences join, in order, while slots, rows and cache memory suffice."""
        while self._encoded and self.num_active_sentences < self.max_sentences:
            sentence, source = self._encoded[0]
            if self.num_active + sentence.width > self.max_rows:
                break
            key = self._key_for(sentence)
            if not self._has_room(key, sentence):
                break
            try:
                self._batch_for(key).join(sentence, source)
                self.num_active += sentence.width
                self.num_active_sentences += 1
            except Exception:  # most likely out of memory for the caches of a new width
                self._fail_run("admission", [sentence.call])
            self._encoded.popleft()
            self._admission.start([sentence.call])

    def _has_room(self, key: BatchKey, sentence: Sentence) -> bool:
        """Whether the caches have room for ``sentence`` in the batch ``key``."""
        if self._budget.is_ample:
            return True
        running = {key: batch.sentences for key, batch in self._batches.items()}
        return self._budget.has_room(running, key, sentence)

    def _key_for(self, sentence: Sentence) -> BatchKey:
        width = sentence.width
        return self._model.step_for(width, sentence.one_token_steps), width

    def _batch_for(self, key: BatchKey) -> RunningBatch:
        if key not in self._batches:
            step, width = key
            max_slots = min(self.max_rows // width, self.max_sentences)
            cache = self._model.new_cache(step, width, max_slots, self.pool)
            self._batches[key] = RunningBatch(
                width, max_slots, cache, self._model.start_token_id, self._model.vocab_size
            )
        return self._batches[key]

    def _step(self) -> None:
        """One step for every running row."""
        num_rows = self.num_active
        if not num_rows:
            return
        started, num_waiting = self._clock(), len(self._queue) + len(self._encoded)
        is_full = self.num_active_sentences >= self.max_sentences
        max_rows = num_rows if is_full else self.max_rows
        num_output_tokens = 0
        for batch in self._batches.values():
            if batch.sentences:
                num_output_tokens += self._step_batch(batch)
        seconds = self._clock() - started
        self._observer.on_step(
            self.name,
            StepReport(num_rows, max_rows, num_waiting, num_output_tokens, seconds),
        )

    def _step_batch(self, batch: RunningBatch) -> int:
        """One step of one batch; returns the output tokens of the sentences that it finished."""
        running = list(batch.sentences)
        try:
            ended = batch.step()
        except Exception:
            batch.clear()
            self._count_active()
            self._fail_run("step", [sentence.call for sentence in running])
            return 0
        if ended.finished or ended.without_result:
            self._count_active()  # before calls are answered: callers may read the counts then
        for sentence in ended.without_result:
            self._fail_result(sentence.call)
        self._tell_prefixes(running)
        return sum(map(self._finish, ended.finished))

    def _tell_prefixes(self, sentences: list[Sentence]) -> None:
        """Note the times of first tokens, and report the settled prefixes of streams."""
        now = self._clock()
        for sentence in sentences:
            call = sentence.call
            if call.timings.first_token is None:
                call.timings.first_token = now
                call.timings.num_first_tokens = sentence.search.num_tokens
                call.timings.num_step_texts = len(sentences)
            if call.on_prefix is not None and not call.is_over():
                self._tell_prefix(sentence, call.on_prefix)

    def _tell_prefix(
        self, sentence: Sentence, on_prefix: Callable[[tuple[int, ...]], None]
    ) -> None:
        num_settled = sentence.search.num_settled
        if num_settled <= sentence.num_settled:
            return
        sentence.num_settled = num_settled
        try:
            on_prefix(sentence.search.settled_prefix())
        except Exception:
            logger.exception("event=prefix_callback_failed model=%s", self.name)
            self._fail_calls([sentence.call], ModelFailed("the translation could not be streamed"))

    def _finish(self, sentence: Sentence) -> int:
        """Answer a finished sentence; returns its number of output tokens."""
        hypotheses = sentence.search.hypotheses()
        sentence.call.put(sentence.index, hypotheses, self._clock())
        return sum(len(h.token_ids) for h in hypotheses)

    def _score(self) -> None:
        """Score one batch of waiting pairs."""
        if not len(self._pairs):
            return
        share = self._share_of(self._pairs)
        batch = self._take_similar(self._pairs, self._limits.max_encode_tokens, share)
        if batch:
            self._admission.start(pair.call for pair in batch)
            lengths = [len(pair.call.pairs[pair.index][1]) for pair in batch]
            for pairs, scores in self._run("scorer", batch, lengths, self._scores_of):
                self._put_scores(pairs, scores)

    def _scores_of(self, pairs: Sequence[QueuedText[ScoreCall]]) -> list[TargetScore]:
        return self._model.score([pair.call.pairs[pair.index] for pair in pairs])

    def _put_scores(
        self, pairs: Sequence[QueuedText[ScoreCall]], scores: list[TargetScore]
    ) -> None:
        now = self._clock()
        for pair, score in zip(pairs, scores, strict=True):
            if np.isfinite(score.log_probabilities).all():
                pair.call.put(pair.index, score, now)
            else:
                self._fail_result(pair.call)
