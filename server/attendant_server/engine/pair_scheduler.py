"""The part of a translation scheduler that scores and aligns given translations."""

from collections.abc import Callable, Sequence
from itertools import compress
from operator import not_
from typing import Any, Self

import numpy as np

from attendant_server.engine.admission_queue import AdmissionQueue
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
        """Score or align one batch of waiting pairs, of all callers or of a lane.

        Returns whether it ran.
        """
        if not len(self._pairs):
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
            if pairs is batch:
                num_padded_tokens = max(pair.num_tokens for pair in batch) * len(batch)
                budget.measure(num_padded_tokens, started)
            self._put_results(pairs, results)
        return True

    def _results_of(
        self, pairs: Sequence[QueuedText[PairCall[Any]]]
    ) -> list[TargetScore | AttentionWeights]:
        """The score of each pair, or its alignment if that is what its call wants."""
        wanted = [pair.call.pairs[pair.index] for pair in pairs]
        are_aligned = [isinstance(pair.call, AlignCall) for pair in pairs]
        to_align = list(compress(wanted, are_aligned))
        to_score = list(compress(wanted, map(not_, are_aligned)))
        alignments = iter(self._model.align(to_align) if to_align else ())
        scores = iter(self._model.score(to_score) if to_score else ())
        return [next(alignments) if is_aligned else next(scores) for is_aligned in are_aligned]

    def _put_results(
        self,
        pairs: Sequence[QueuedText[PairCall[Any]]],
        results: list[TargetScore | AttentionWeights],
    ) -> None:
        now = self._clock()
        for pair, result in zip(pairs, results, strict=True):
            values = result.log_probabilities if isinstance(result, TargetScore) else result
            if np.isfinite(values).all():
                pair.call.put(pair.index, result, now)
            else:
                self._fail_result(pair.call)
