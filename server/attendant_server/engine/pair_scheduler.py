"""The part of a translation scheduler that scores, aligns and studies given translations."""

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import numpy as np

from attendant_server.engine.admission_queue import AdmissionQueue
from attendant_server.engine.attention_calls import AttendPairCall, Attention
from attendant_server.engine.batch_budget import BatchBudget
from attendant_server.engine.caller_activity import CallerActivity
from attendant_server.engine.caller_queue import QueuedText
from attendant_server.engine.calls import Call
from attendant_server.engine.lanes import Run
from attendant_server.engine.models import TranslationModel
from attendant_server.engine.pair_calls import (
    AlignCall,
    AttentionWeights,
    PairCall,
    TargetScore,
)
from attendant_server.engine.reports import Observer
from attendant_server.engine.scheduler import Scheduler

PairResult: TypeAlias = TargetScore | AttentionWeights | Attention
QueuedPair: TypeAlias = QueuedText[PairCall[Any]]


class PairScheduler(Scheduler):
    """Runs batches of pairs, which have a queue of their own."""

    def __init__(
        self,
        name: str,
        max_queued_texts: int,
        observer: Observer,
        clock: Callable[[], float],
        sibling: Self | None,
        activity: CallerActivity | None,
        runs: Sequence[Run],
        *,
        model: TranslationModel,
        pair_budget: BatchBudget,
    ) -> None:
        """``pair_budget`` bounds a batch of pairs; the rest as in `Scheduler`."""
        super().__init__(name, max_queued_texts, observer, clock, sibling, activity, runs)
        self._model, self._pair_budget = model, pair_budget
        self._pairs: AdmissionQueue[PairCall[Any]]
        self._pairs = sibling._pairs if sibling else AdmissionQueue(self._admission)

    def _take_waiting(self) -> list[Call[Any]]:
        pairs = self._pairs.take_all(self._clock())
        return super()._take_waiting() + [pair.call for pair in pairs]

    def _score(self, is_light: bool | None = None) -> bool:
        """Score, align or study one batch of waiting pairs, of all callers or of a lane.

        Returns whether it ran.
        """
        if not self._has_texts(self._pairs) or (is_light is False and self._is_spared()):
            return False
        budget = self._pair_budget
        max_tokens = budget.timely if is_light is False else budget.max_tokens
        share = len(self._pairs) if is_light else self._share_of(self._pairs)
        batch = self._take_similar(self._pairs, max_tokens, share, is_light)
        if not batch:
            return False
        self._admission.start(pair.call for pair in batch)
        lengths = [len(pair.call.pairs[pair.index][1]) for pair in batch]
        started = budget.run_clock()
        for pairs, results in self._run("scorer", batch, lengths, self._results_of):
            # The time of a pair that is run alone says nothing about batches.
            if pairs is batch and not any(map(_is_studied, pairs)):
                num_padded_tokens = max(pair.num_tokens for pair in batch) * len(batch)
                budget.measure(num_padded_tokens, started)
            self._put_results(pairs, results)
        return True

    def _results_of(self, pairs: Sequence[QueuedPair]) -> list[PairResult]:
        """The score of each pair, or its alignment or attention if that is what its call wants."""
        wanted = [pair.call.pairs[pair.index] for pair in pairs]
        results: dict[int, PairResult] = {}
        to_align: list[int] = []
        to_score: list[int] = []
        for i, pair in enumerate(pairs):
            if _is_studied(pair):
                results[i] = self._model.attend(*wanted[i])
            else:
                (to_align if isinstance(pair.call, AlignCall) else to_score).append(i)
        for chosen, run in ((to_align, self._model.align), (to_score, self._model.score)):
            if chosen:
                found: Sequence[PairResult] = run([wanted[i] for i in chosen])
                results |= dict(zip(chosen, found, strict=True))
        return [results[i] for i in range(len(pairs))]

    def _put_results(self, pairs: Sequence[QueuedPair], results: Sequence[PairResult]) -> None:
        now = self._clock()
        for pair, result in zip(pairs, results, strict=True):
            if _is_finite(result):
                pair.call.put(pair.index, result, now)
            else:
                self._fail_result(pair.call)


def _is_studied(pair: QueuedPair) -> bool:
    return isinstance(pair.call, AttendPairCall)


def _is_finite(result: PairResult) -> bool:
    if isinstance(result, Attention):
        return result.is_finite
    values = result.log_probabilities if isinstance(result, TargetScore) else result
    return bool(np.isfinite(values).all())
