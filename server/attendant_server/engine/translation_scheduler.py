"""Step-level continuous batching for one translation model.

Every `advance` encodes a bounded number of waiting sources, lets encoded sentences join while rows
are free, and runs one step for all running rows, whatever their length or options. A step decodes
one token per row, or several in greedy search.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from typing import Any, Self

from attendant_server.engine.admission_queue import AdmissionQueue
from attendant_server.engine.batch_budget import BatchBudget
from attendant_server.engine.cache_budget import CacheBudget
from attendant_server.engine.caller_activity import CallerActivity
from attendant_server.engine.caller_queue import QueuedText
from attendant_server.engine.calls import Call, TranslateCall
from attendant_server.engine.models import CachePool, EncodedSource, TranslationModel
from attendant_server.engine.pair_calls import PairCall
from attendant_server.engine.pair_scheduler import PairScheduler
from attendant_server.engine.repetition_guard import RepetitionGuard, num_settled
from attendant_server.engine.reports import Observer, StepReport
from attendant_server.engine.running_batch import RunningBatch, Sentence
from attendant_server.engine.searches import search_of
from attendant_server.engine.slots import Slots
from attendant_server.engine.token_rules import rules_of
from attendant_server.engine.translation_limits import TranslationLimits
from attendant_server.engine.worker_use import WorkerUse
from attendant_server.errors import ModelFailed

logger = logging.getLogger(__name__)


class TranslationScheduler(PairScheduler):
    """The running sentences and the caches of one worker, and the queues of the model."""

    _queue: AdmissionQueue[TranslateCall]

    def __init__(
        self,
        name: str,
        model: TranslationModel,
        limits: TranslationLimits,
        observer: Observer,
        clock: Callable[[], float],
        sibling: Self | None = None,
        activity: CallerActivity | None = None,
    ) -> None:
        runs = [self._encode, self._step_lane, self._score]
        new_budget = partial(
            BatchBudget,
            *(limits.max_encode_tokens, limits.max_run_seconds, limits.run_clock or clock),
        )
        super().__init__(
            *(name, limits.max_queued_texts, observer, clock, sibling, activity, runs),
            model=model,
            pair_budget=new_budget(),
        )
        self.max_rows, self.max_sentences = limits.max_rows, limits.max_sentences
        self._limits = limits
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
        self._slots = Slots(
            model,
            limits.max_rows,
            limits.max_sentences,
            self._budget,
            self.pool,
            on_joined=self._admission.start,
            on_failed=partial(self._fail_run, "admission"),
        )
        self._admission.num_slots += limits.max_sentences
        self._use: WorkerUse
        self._use = sibling._use if sibling else WorkerUse(limits.full_rows)
        self._encode_budget = new_budget()

    @property
    def num_active(self) -> int:
        """Rows in use by this scheduler. Any thread may read it."""
        return self._slots.num_rows

    @property
    def num_active_sentences(self) -> int:
        """Sentences that this scheduler decodes. Any thread may read it."""
        return self._slots.num_sentences

    @property
    def has_work(self) -> bool:
        """Whether anything runs here, or waits and is not left to other workers."""
        if self._num_held or self._has_texts(self._pairs):
            return True
        return bool(len(self._queue)) and self.num_wanted > 0

    @property
    def num_wanted(self) -> int:
        """Workers without sentences that should take waiting texts now. Any thread."""
        if len(self._pairs):
            return len(self._siblings)
        return self._num_used() - sum(each._num_held > 0 for each in self._siblings)

    def submit(self, call: Call[Any]) -> None:
        """Queue a `TranslateCall` or a `PairCall`; raises QueueFull. Any thread.

        Raises SearchTooLarge for texts whose caches can never fit, TypeError for other calls.
        """
        if isinstance(call, PairCall):
            self._enqueue(self._pairs, call, (max(map(len, pair)) for pair in call.pairs))
        elif isinstance(call, TranslateCall):
            assert call.width <= self.max_rows
            lengths = [len(source) for source in call.sources]
            starts = [self._model.row_start(source).num_positions for source in call.sources]
            self._budget.check(call, lengths, starts)
            self._use.width = call.width
            self._enqueue(self._queue, call, lengths)
        else:
            raise TypeError(f"a translation model cannot run a {type(call).__name__}")

    def advance(self, is_alone: bool) -> None:
        """Do one bounded round of work; see `Scheduler.advance`."""
        if not self._use.is_measured():
            super().advance(is_alone)
            return
        started, used = self._clock(), time.thread_time()
        super().advance(is_alone)
        self._use.measure(self._clock() - started, time.thread_time() - used, is_alone)

    def _advance(self, is_alone: bool) -> None:
        """Encode, admit, run one step of every batch, score."""
        self._encode()
        self._drop_abandoned()  # after encoding, which takes time: calls may have ended
        self._slots.join(True)  # if lanes have just ended
        self._slots.join()
        self._step()
        self._score()

    def _step_lane(self, is_light: bool) -> bool:
        """Let sentences of both lanes join and run one step of one lane; returns whether it ran."""
        self._drop_abandoned()
        self._slots.join_lanes()
        return self._step(is_light)

    def _drop_abandoned(self) -> None:
        self._slots.drop_abandoned(self._clock(), self._expire)

    def release_memory(self) -> None:
        """Release the memory of the caches and the working memory of the model's runs."""
        self.pool.release()
        self._model.release_memory()

    def stop_runs(self) -> None:
        """Let the present model runs of all workers raise soon. Any thread."""
        self._model.stop_runs()

    def _take_running(self) -> list[Call[Any]]:
        return self._slots.clear()

    def _encode(self, is_light: bool | None = None) -> bool:
        """Encode waiting sources together once the encoded ones cannot fill the free slots.

        Returns whether the encoder has run, for all callers or for a lane.
        """
        if not len(self._queue):
            return False
        num_free = self._slots.can_encode(is_light)
        share = min(num_free, len(self._queue)) if is_light else self._share()
        if not num_free or not share:
            return False
        budget = self._encode_budget
        max_tokens = budget.timely if is_light is False else budget.max_tokens
        batch = self._take_similar(self._queue, max_tokens, share, is_light)
        if not batch:
            return False
        lengths, started = [text.num_tokens for text in batch], budget.run_clock()
        for texts, sources in self._run("encoder", batch, lengths, self._encoded_of):
            if texts is batch:
                budget.measure(max(lengths) * len(lengths), started)
            self._begin(texts, sources, is_light)
        return True

    def _encoded_of(self, texts: Sequence[QueuedText[TranslateCall]]) -> list[EncodedSource]:
        return self._model.encode([text.call.sources[text.index] for text in texts])

    def _share(self) -> int:
        """Waiting sentences that this worker may take for an equal load on the workers in use."""
        held = sum(scheduler._num_held for scheduler in self._siblings)
        return max(0, ceil((len(self._queue) + held) / self._num_used()) - self._num_held)

    def _num_used(self) -> int:
        """Workers that should decode all the texts that wait or run."""
        num_waiting = len(self._queue) + sum(each._slots.num_encoded for each in self._siblings)
        num_rows = num_waiting * self._use.width + sum(each.num_active for each in self._siblings)
        return self._use.num_workers(num_rows, len(self._siblings))

    @property
    def _num_held(self) -> int:
        """Sentences that this worker decodes or will decode. Any thread."""
        return self._slots.num_sentences + self._slots.num_encoded

    def _begin(
        self,
        texts: Sequence[QueuedText[TranslateCall]],
        sources: list[EncodedSource],
        is_light: bool | None,
    ) -> None:
        """Begin the searches of texts that have just been encoded."""
        now, encoded = self._clock(), self._slots.encoded[is_light is True]
        for text, source in zip(texts, sources, strict=True):
            text.call.timings.encoded = now
            encoded.append((self._sentence(text), source))

    def _sentence(self, text: QueuedText[TranslateCall]) -> Sentence:
        options = text.call.options_for(text.index, text.num_tokens)
        source, eos_id = text.call.sources[text.index], self._model.eos_id
        start = self._model.row_start(source)
        seed = text.call.seeds[text.index] if options.sampling is not None else ""
        search = search_of(options, seed, start.token_id, eos_id)
        rules = rules_of(options, start.begin_token_id, eos_id)
        guard = None
        if options.repetition_guard:
            guard = RepetitionGuard(
                source,
                max(options.min_output_tokens, len(options.forced_token_ids)),
                options.forced_token_ids,
                is_streamed=text.call.on_prefix is not None,
            )
        return Sentence(
            *(text.call, text.index, search, start, text.num_tokens, options.max_output_tokens),
            rules,
            options.repetition_penalty,
            guard,
        )

    def _step(self, is_light: bool | None = None) -> bool:
        """One step for every running row, or for those of a lane; returns whether there are any."""
        slots = self._slots
        if not slots.num_sentences:
            return False
        started, num_waiting = self._clock(), len(self._queue) + slots.num_encoded
        is_full = slots.num_sentences >= self.max_sentences
        num_rows = num_output_tokens = 0
        for key, batch in slots.batches.items():
            if batch.sentences and (is_light is None or key[2] is is_light):
                num_rows += batch.num_rows
                num_output_tokens += self._step_batch(batch)
        if not num_rows:
            return False
        max_rows = num_rows if is_full else self.max_rows
        seconds = self._clock() - started
        self._observer.on_step(
            self.name,
            StepReport(num_rows, max_rows, num_waiting, num_output_tokens, seconds),
        )
        return True

    def _step_batch(self, batch: RunningBatch) -> int:
        """One step of one batch; returns the output tokens of the sentences that it finished."""
        running = list(batch.sentences)
        try:
            ended = batch.step()
        except Exception:
            batch.clear()
            self._slots.count()
            self._fail_run("step", [sentence.call for sentence in running])
            return 0
        if ended.finished or ended.without_result:
            self._slots.count()  # before calls are answered: callers may read the counts then
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
            if call.on_prefix is not None and not (sentence.index or call.is_over()):
                self._tell_prefix(sentence, call.on_prefix)

    def _tell_prefix(
        self, sentence: Sentence, on_prefix: Callable[[tuple[int, ...]], None]
    ) -> None:
        if sentence.search.num_settled <= sentence.num_settled:
            return
        prefix = sentence.search.settled_prefix()
        if sentence.guard is not None and not sentence.search.is_finished:
            prefix = prefix[: num_settled(prefix)]
            if len(prefix) <= sentence.num_settled:
                return
        sentence.num_settled = len(prefix)
        try:
            on_prefix(prefix)
        except Exception:
            logger.exception("event=prefix_callback_failed model=%s", self.name)
            self._fail_calls([sentence.call], ModelFailed("the translation could not be streamed"))

    def _finish(self, sentence: Sentence) -> int:
        """Answer a finished sentence; returns its number of output tokens."""
        hypotheses = sentence.search.hypotheses()
        sentence.call.put(sentence.index, hypotheses, self._clock())
        return sum(len(h.token_ids) for h in hypotheses)
