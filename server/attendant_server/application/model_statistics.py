"""What each model has done since the server started: counts and times, for protocols that tell."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from attendant_server.engine.reports import BatchReport, StepReport
from attendant_server.records import BETWEEN_MODELS, CallRecord

PHASES = {
    "queue": ("queue",),
    "compute_input": ("tokenize",),
    "compute_infer": ("encode", "decode"),
    "compute_output": ("answer",),
}
"""The phases of calls in each duration of `ModelFigures`."""


@dataclass(slots=True)
class ModelFigures:
    """The figures of one model."""

    num_texts: int = 0
    """Texts without a fault, of calls that were answered."""
    num_batches: int = 0
    """Runs of an encoder, embedder or scorer, each with texts of any calls."""
    last_call_milliseconds: int = 0
    """When the last call ended, in milliseconds of Unix time; 0 for never."""
    durations: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Number and nanoseconds of ``success``, ``fail`` and the keys of `PHASES`: the first two are
    whole calls, the others phases of answered calls."""

    def count(self, name: str, seconds: float) -> None:
        """Add a duration."""
        number, nanoseconds = self.durations.get(name, (0, 0))
        self.durations[name] = (number + 1, nanoseconds + max(0, round(seconds * 1e9)))


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What a model has to do at the moment."""

    num_queued_texts: int = 0
    """Texts that wait, over all workers."""
    num_active_texts: int = 0
    """Sentences that are being decoded, or texts in a batch."""


class ModelStatistics:
    """Counts what models do, as an observer of calls and of the engine."""

    def __init__(self, catch_up: Callable[[], None]) -> None:
        """``catch_up`` lets the observers of calls see all that have ended."""
        self._catch_up = catch_up
        self._figures: defaultdict[str, ModelFigures] = defaultdict(ModelFigures)
        self._loads: dict[str, Callable[[], ModelLoad]] = {}
        self._counting = threading.Lock()  # workers report their batches at the same time

    def read(self) -> Mapping[str, ModelFigures]:
        """The figures so far, by the keys of models; zeros for those that did nothing."""
        self._catch_up()
        return self._figures

    def watch(self, model: str, read: Callable[[], ModelLoad]) -> None:
        """Let ``read`` tell the load of a model, by its key, until `forget`."""
        self._loads[model] = read

    def forget(self, model: str) -> None:
        """Tell the load of a model no more."""
        self._loads.pop(model, None)

    def load(self, model: str) -> ModelLoad:
        """The load of a model at the moment; zeros while it is loading."""
        read = self._loads.get(model)
        return ModelLoad() if read is None else read()

    def on_call_started(self, record: CallRecord) -> None:
        """A call has started."""

    def on_part_ended(self, record: CallRecord) -> None:
        """Texts of a stream have been answered."""
        self._add(record)

    def on_call_ended(self, record: CallRecord) -> None:
        """A call has ended."""
        if not record.has_part_records:
            self._add(record)

    def on_step(self, model: str, report: StepReport) -> None:
        """A decoding step has ended."""

    def on_batch(self, model: str, report: BatchReport) -> None:
        """A batch has been run."""
        with self._counting:
            self._figures[model].num_batches += 1

    def on_dropped(self, model: str, reason: str, num_texts: int) -> None:
        """Texts were left without an answer."""

    def _add(self, record: CallRecord) -> None:
        if not record.num_texts or record.ended is None:
            return
        for model in record.model.split(BETWEEN_MODELS):
            with self._counting:
                self._count(self._figures[model], record, record.ended - record.started)

    def _count(self, figures: ModelFigures, record: CallRecord, seconds: float) -> None:
        figures.last_call_milliseconds = round(time.time() * 1000)
        num_texts = record.num_texts - record.num_invalid_texts
        # A request of a stream that has failed has a reason, and the code of the stream.
        if record.code != "OK" or record.reason or num_texts <= 0:
            figures.count("fail", seconds)
            return
        figures.num_texts += num_texts
        figures.count("success", seconds)
        phases = {name: end - start for name, start, end in record.phases()}
        for name, parts in PHASES.items():
            figures.count(name, sum(phases.get(part, 0.0) for part in parts))
