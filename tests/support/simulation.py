"""Open-loop load on one scheduler in simulated time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any

from attendant_server.engine.calls import Call, Caller
from attendant_server.engine.embedding_scheduler import EmbeddingScheduler
from attendant_server.engine.encoder_calls import EmbedCall
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
        """Times, and the seconds by which the first run that ends after each takes longer."""

    def embed(self, texts: Any, outputs: Any, *lengths: Any, **more: Any) -> Any:
        self.clock.now += self.seconds_per_token * len(texts) * max(map(len, texts))
        while self.stalls and self.stalls[0][0] <= self.clock.now:
            self.clock.now += self.stalls.pop(0)[1]
        return super().embed(texts, outputs, *lengths, **more)


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
    def end(self) -> str:
        """``answered``, ``expired`` or the name of the error that refused it."""
        if self.refusal is not None:
            return type(self.refusal).__name__
        return "answered" if self.call.future.was_answered else "expired"


def embedding(
    at: float, seconds: float, caller: str, lengths: Iterable[int], is_bulk: bool = False
) -> Arrival:
    """A call with texts of these lengths that has so many seconds, from its arrival on."""
    call = EmbedCall([[1] * n for n in lengths], ("mean_pooled",), at + seconds)
    call.caller = Caller(caller, is_bulk)
    return Arrival(at, call)


def simulate(
    scheduler: Scheduler,
    clock: SimulatedClock,
    arrivals: list[Arrival],
    on_end: Callable[[Arrival], Arrival | None] = lambda _: None,
) -> list[Arrival]:
    """Submit the calls at their times, and run until all have ended; returns all calls.

    ``on_end`` may return a call that follows an ended one.
    """
    coming = [(each.at, n, each) for n, each in enumerate(arrivals)]
    heapify(coming)
    calls, ended = list[Arrival](), list[Arrival]()
    while coming or scheduler.has_work:
        if not scheduler.has_work:
            clock.now = max(clock.now, coming[0][0])
        while coming and coming[0][0] <= clock.now:
            calls.append(heappop(coming)[2])
            _submit(scheduler, calls[-1], ended)
        scheduler.advance(is_alone=True)
        while ended:
            arrival = ended.pop()
            arrival.ended = clock.now
            if (following := on_end(arrival)) is not None:
                heappush(coming, (following.at, len(coming) + len(calls), following))
    return calls


def _submit(scheduler: Scheduler, arrival: Arrival, ended: list[Arrival]) -> None:
    arrival.call.future.add_done_callback(partial(_note, ended, arrival))
    try:
        scheduler.submit(arrival.call)
    except QueueFull as error:
        arrival.refusal = error
        ended.append(arrival)


def _note(ended: list[Arrival], arrival: Arrival, _: Any) -> None:
    ended.append(arrival)
