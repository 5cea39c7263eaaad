"""Counts and times what happens. It is told and decides nothing.

Every series exists from the start, so that rates over them are right from the first event on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attendant_server.engine.reports import BatchReport, StepReport
from attendant_server.observability.series import Series
from attendant_server.records import CallRecord, Method

REFUSALS = ("queue_full", "unavailable", "concurrency")
DROPS = ("cancelled", "expired", "failed")
METHODS = {
    "translation": ("Translate", "StreamTranslate", "Score", "Tokenize"),
    "embedding": ("Embed", "EmbedTokens", "FillMask", "Tokenize"),
}
TRANSLATING = ("Translate", "StreamTranslate")
WITHOUT_ENGINE = ("Tokenize",)


class Metrics:
    """Receives the reports of the engine and the records of calls."""

    def __init__(self) -> None:
        self._series = Series()
        self.registry = self._series.registry
        self._labels: dict[str, tuple[str, str]] = {}
        for reason in REFUSALS:
            self._series.refused_calls.labels(reason)

    def describe_server(self, **facts: str) -> None:
        """Say what this server is."""
        self._series.build.info(facts)

    def add_methods(self, methods: Iterable[Method], codes: Sequence[str]) -> None:
        """Start the series of gRPC methods at zero."""
        for method in methods:
            self._series.rpcs_started.labels(*method)
            self._series.rpc_seconds.labels(*method)
            for code in codes:
                self._series.rpcs_handled.labels(*method, code)

    def add_model(self, model: str, kind: str, precision: str, codes: Sequence[str]) -> None:
        """Start the series of ``<name>/<version>``, a ``translation`` or ``embedding`` model."""
        name, _, version = model.rpartition("/")
        labels = self._labels[model] = (name, version)
        self._series.model.labels(*labels).info({"kind": kind, "precision": precision})
        for metric in self._of_models(kind):
            metric.labels(*labels)
        for reason in DROPS:
            self._series.dropped_texts.labels(*labels, reason)
        for method in METHODS[kind]:
            for metric in self._of_methods(method):
                metric.labels(*labels, method)
            for code in codes:
                self._series.calls.labels(*labels, method, code)

    def watch(self, gauges: Mapping[str, Callable[[], float]]) -> None:
        """Read gauges of the server, by their names, whenever they are asked for."""
        for name, read in gauges.items():
            self._series.gauges[name].set_function(read)

    def watch_model(self, model: str, gauges: Mapping[str, Callable[[], float]]) -> None:
        """Read gauges of a model, by their names, whenever they are asked for."""
        known = self._series.gauges_of_all | self._series.gauges_of_translation
        for name, read in gauges.items():
            known[name].labels(*self._labels[model]).set_function(read)

    def watch_device_memory(self, read: Callable[[], tuple[int, int]]) -> None:
        """Read the bytes in use on the GPU, by anyone, and all that it has."""
        texts = {
            "attendant_device_memory_used_bytes": "Memory of the GPU in use, by any process",
            "attendant_device_memory_bytes": "Memory of the GPU",
        }
        for i, (name, text) in enumerate(texts.items()):
            self._series.gauge(name, text).set_function(lambda i=i: read()[i])

    def on_call_started(self, record: CallRecord) -> None:
        """A call has come."""
        self._series.rpcs_started.labels(*record.method).inc()

    def on_call_ended(self, record: CallRecord) -> None:
        """A call has ended."""
        assert record.ended is not None
        series, seconds = self._series, record.ended - record.started
        exemplar = {"trace_id": record.trace_id} if record.trace_id else None
        series.rpcs_handled.labels(*record.method, record.code).inc()
        series.rpc_seconds.labels(*record.method).observe(seconds, exemplar)
        if not record.model:
            return
        model = self._labels[record.model]
        call = (*model, record.method.name)
        series.calls.labels(*call, record.code).inc()
        if record.num_truncated_texts:
            series.truncated_texts.labels(*model).inc(record.num_truncated_texts)
        if record.num_invalid_texts:
            series.invalid_texts.labels(*model).inc(record.num_invalid_texts)
        if record.code == "OK":
            series.call_seconds.labels(*call).observe(seconds, exemplar)
            self._time(record, call, exemplar)

    def on_refused(self, reason: str) -> None:
        """A call was not admitted."""
        self._series.refused_calls.labels(reason).inc()

    def on_step(self, model: str, report: StepReport) -> None:
        """A decoding step has ended."""
        labels = self._labels[model]
        series = self._series
        series.step_seconds.labels(*labels).observe(report.seconds)
        series.step_rows.labels(*labels).observe(report.num_rows)
        if report.num_output_tokens:
            series.output_tokens.labels(*labels).inc(report.num_output_tokens)
        if report.num_waiting:
            series.saturated_step_rows.labels(*labels).inc(report.num_rows)
            series.saturated_step_max_rows.labels(*labels).inc(report.max_rows)

    def on_batch(self, model: str, report: BatchReport) -> None:
        """A batch has been run."""
        labels, series = self._labels[model], self._series
        is_scored = report.graph == "scorer"
        seconds, texts, tokens, padded_tokens = (
            metric.labels(*labels)
            for metric in (series.score_batches if is_scored else series.encode_batches)
        )
        seconds.observe(report.seconds)
        texts.observe(report.num_texts)
        tokens.inc(report.num_tokens)
        padded_tokens.inc(report.num_padded_tokens)
        series.input_tokens.labels(*labels).inc(report.num_tokens)

    def on_dropped(self, model: str, reason: str, num_texts: int) -> None:
        """Texts were left without an answer."""
        self._series.dropped_texts.labels(*self._labels[model], reason).inc(num_texts)

    def _time(
        self, record: CallRecord, call: tuple[str, str, str], exemplar: dict[str, str] | None
    ) -> None:
        """Observe where the time of an answered call went.

        A trace has the phases itself, so they need no exemplars, which cost as much again.
        """
        for name, start, end in record.phases():
            if name in self._series.phase_seconds:
                self._series.phase_seconds[name].labels(*call).observe(end - start)
        engine = record.engine
        if engine.submitted is None or engine.first_token is None or engine.finished is None:
            return
        seconds = engine.first_token - engine.submitted
        self._series.time_to_first_token.labels(*call).observe(seconds, exemplar)
        num_further = record.longest_output - engine.num_first_tokens
        if num_further > 0:
            each = (engine.finished - engine.first_token) / num_further
            self._series.time_per_output_token.labels(*call).observe(each, exemplar)

    def _of_models(self, kind: str) -> Iterable[Any]:
        series = self._series
        yield from (series.input_tokens, series.truncated_texts, series.invalid_texts)
        yield from (*series.encode_batches, *series.gauges_of_all.values())
        if kind == "translation":
            yield from (series.output_tokens, series.step_seconds, series.step_rows)
            yield from (series.saturated_step_rows, series.saturated_step_max_rows)
            yield from series.score_batches
            yield from series.gauges_of_translation.values()

    def _of_methods(self, method: str) -> Iterable[Any]:
        phases = self._series.phase_seconds
        yield from (self._series.call_seconds, phases["tokenize"])
        if method not in WITHOUT_ENGINE:
            yield from (phases["queue"], phases["encode"])
        if method in TRANSLATING:
            yield phases["decode"]
            yield from (self._series.time_to_first_token, self._series.time_per_output_token)


class NoMetrics(Metrics):
    """For a server whose metrics nobody can see: counts nothing."""

    def on_call_started(self, record: CallRecord) -> None:
        """A call has come."""

    def on_call_ended(self, record: CallRecord) -> None:
        """A call has ended."""

    def on_refused(self, reason: str) -> None:
        """A call was not admitted."""

    def on_step(self, model: str, report: StepReport) -> None:
        """A decoding step has ended."""

    def on_batch(self, model: str, report: BatchReport) -> None:
        """A batch has been run."""

    def on_dropped(self, model: str, reason: str, num_texts: int) -> None:
        """Texts were left without an answer."""
