"""Open-loop load on one scheduler in simulated time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from attendant_server.engine.calls import Call, EmbedCall
from attendant_server.engine.embedding_scheduler import EmbeddingScheduler
from attendant_server.engine.scheduler import Scheduler
from attendant_server.errors import QueueFull

from tests.support.fake_model import FakeEmbeddingModel, RecordingObserver
from tests.support.limits import embedding_limits


class SimulatedClock:
    """A clock that stands still unless a model runs or the simulation waits."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowEmbeddingModel(FakeEmbeddingModel):
    """Each run takes the same time for each padded token."""

    def __init__(self, clock: SimulatedClock, seconds_per_token: float) -> None:
        super().__init__()
        self.clock, self.seconds_per_token = clock, seconds_per_token
        self.stalls: list[tuple[float, float]] = []
        """Times from which on the next run takes so many seconds longer."""

    def embed(self, texts: Any, outputs: Any, first_lengths: Any = None) -> Any:
        self.clock.now += self.seconds_per_token * len(texts) * max(map(len, texts))
        while self.stalls and self.stalls[0][0] <= self.clock.now:
            self.clock.now += self.stalls.pop(0)[1]
        return super().embed(texts, outputs, first_lengths)


def slow_embedder(
    clock: SimulatedClock, seconds_per_token: float, **limits: Any
) -> tuple[EmbeddingScheduler, SlowEmbeddingModel]:
    """A scheduler whose runs take simulated time, and its model."""
    model = SlowEmbeddingModel(clock, seconds_per_token)
    limits = {"max_batch_tokens": 64} | limits
    scheduler = EmbeddingScheduler(
        "fake", model, embedding_limits(**limits), RecordingObserver(), clock
    )
    return scheduler, model


@dataclass
class Arrival:
    """A call that comes at a time, and its end."""

    at: float
    call: Call[Any]
    refusal: QueueFull | None = None
    ended: float | None = field(default=None, init=False)

    @property
    def seconds(self) -> float:
        """Time from the arrival to the end."""
        assert self.ended is not None
        return self.ended - self.at

    @property
    def is_answered(self) -> bool:
        return self.call.future.was_answered


def embedding_of(lengths: Iterable[int], deadline: float | None) -> EmbedCall:
    """A call with texts of these lengths."""
    return EmbedCall([[1] * n for n in lengths], ("mean_pooled",), deadline)


def simulate(
    scheduler: Scheduler,
    clock: SimulatedClock,
    arrivals: list[Arrival],
    on_end: Callable[[Arrival], Arrival | None] = lambda _: None,
) -> list[Arrival]:
    """Submit the calls at their times, and run until all have ended; returns all calls.

    ``on_end`` may return a call that follows an ended one.
    """
    coming, all_calls, ended = sorted(arrivals, key=lambda each: each.at), [], list[Arrival]()
    while coming or scheduler.has_work:
        if not scheduler.has_work:
            clock.now = max(clock.now, coming[0].at)
        while coming and coming[0].at <= clock.now:
            arrival = coming.pop(0)
            all_calls.append(arrival)
            arrival.call.future.add_done_callback(partial(_note, ended, arrival))
            try:
                scheduler.submit(arrival.call)
            except QueueFull as error:
                arrival.refusal = error
                ended.append(arrival)
        scheduler.advance(is_alone=True)
        while ended:
            arrival = ended.pop()
            arrival.ended = clock.now
            if (following := on_end(arrival)) is not None:
                coming.append(following)
                coming.sort(key=lambda each: each.at)
    return all_calls


def _note(ended: list[Arrival], arrival: Arrival, _: Any) -> None:
    ended.append(arrival)
