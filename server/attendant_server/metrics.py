"""All metrics of the server, and the small HTTP server that shows them.

The only user of prometheus_client. It is told what happens and decides nothing. Every series
exists from the start, so that rates over them are right from the first event on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    ProcessCollector,
    start_http_server,
)

from attendant_server.engine.calls import CallTimings
from attendant_server.engine.reports import BatchReport, StepReport
from attendant_server.interceptors.around import Method

REFUSALS = ("queue_full", "unavailable", "concurrency")
DROPS = ("cancelled", "expired", "failed")
GRAPHS = {"translation": ("encoder", "scorer"), "embedding": ("embedder",)}
SECONDS_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0
)  # fmt: skip
RPC_LABELS = ("grpc_service", "grpc_method", "grpc_type")


class Registry(CollectorRegistry):
    """Leaves out the times at which series were made, one series more for each that counts."""

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        for metric in super().collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


class Metrics:
    """Receives the reports of the engine, of calls to models, and of calls to methods."""

    def __init__(self) -> None:
        self.registry = Registry()
        ProcessCollector(registry=self.registry)
        self._info = self._new(Info, "attendant_server", "The server")
        self._rpcs()
        self._models()
        self._steps()
        self._batches()

    def serve(self, host: str, port: int) -> tuple[int, Callable[[], None]]:
        """Show the metrics over HTTP; returns the port and what ends it. Raises OSError."""
        server, thread = start_http_server(port, host, self.registry)

        def close() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        return server.server_port, close

    def describe_server(self, version: str, device: str) -> None:
        """Say what this server is."""
        self._info.info({"version": version, "device": device})

    def add_methods(self, methods: Iterable[Method], codes: Sequence[str]) -> None:
        """Start the series of gRPC methods at zero."""
        for method in methods:
            self._rpc_started.labels(*method)
            self._rpc_seconds.labels(*method)
            for code in codes:
                self._rpc_handled.labels(*method, code)

    def add_model(self, model: str, kind: str, precision: str) -> None:
        """Start the series of a model at zero; ``kind`` is ``translation`` or ``embedding``."""
        self._model_info.labels(model, kind, precision).set(1)
        own = [self._queue_seconds, self._call_seconds]
        if kind == "translation":
            own += [self._first_token_seconds, self._step_seconds, self._num_steps]
            own += [self._num_step_rows, self._num_saturated_steps, self._num_saturated_step_rows]
            own += [self._num_output_tokens]
        for metric in [*own, self._num_input_tokens]:
            metric.labels(model)
        for graph in GRAPHS[kind]:
            for metric in self._of_batches:
                metric.labels(model, graph)
        for reason in DROPS:
            self._num_dropped.labels(model, reason)

    def watch(self, model: str, gauges: dict[str, Callable[[], float]]) -> None:
        """Read gauges of a model, by their names, whenever they are asked for."""
        for name, read in gauges.items():
            self._gauges[name].labels(model).set_function(read)

    def watch_device_memory(self, read: Callable[[], tuple[int, int]]) -> None:
        """Read the bytes in use on the GPU, by anyone, and all that it has."""
        texts = {
            "attendant_device_memory_used_bytes": "Memory of the GPU in use, by any process",
            "attendant_device_memory_bytes": "Memory of the GPU",
        }
        for i, (name, text) in enumerate(texts.items()):
            self._new(Gauge, name, text).set_function(lambda i=i: read()[i])

    def on_rpc_started(self, method: Method) -> None:
        """A call has come."""
        self._rpc_started.labels(*method).inc()

    def on_rpc_handled(self, method: Method, code: str, seconds: float) -> None:
        """A call has ended."""
        self._rpc_handled.labels(*method, code).inc()
        self._rpc_seconds.labels(*method).observe(seconds)

    def on_refused(self, reason: str) -> None:
        """A call was not admitted."""
        self._num_refused.labels(reason).inc()

    def on_answered(self, model: str, timings: CallTimings) -> None:
        """The engine has answered a call."""
        if timings.submitted is None or timings.started is None or timings.finished is None:
            return
        self._queue_seconds.labels(model).observe(timings.started - timings.submitted)
        self._call_seconds.labels(model).observe(timings.finished - timings.submitted)
        if timings.first_token is not None:
            seconds = timings.first_token - timings.submitted
            self._first_token_seconds.labels(model).observe(seconds)

    def on_step(self, model: str, report: StepReport) -> None:
        """A decoding step has ended."""
        self._step_seconds.labels(model).observe(report.seconds)
        self._num_steps.labels(model).inc()
        self._num_step_rows.labels(model).inc(report.num_rows)
        self._num_output_tokens.labels(model).inc(report.num_output_tokens)
        if report.num_waiting:
            self._num_saturated_steps.labels(model).inc()
            self._num_saturated_step_rows.labels(model).inc(report.num_rows)

    def on_batch(self, model: str, report: BatchReport) -> None:
        """A batch has been run."""
        labels = (model, report.graph)
        self._batch_seconds.labels(*labels).observe(report.seconds)
        self._num_batch_texts.labels(*labels).inc(report.num_texts)
        self._num_batch_tokens.labels(*labels).inc(report.num_tokens)
        self._num_batch_padded_tokens.labels(*labels).inc(report.num_padded_tokens)
        self._num_input_tokens.labels(model).inc(report.num_tokens)

    def on_dropped(self, model: str, reason: str, num_texts: int) -> None:
        """Texts were left without an answer."""
        self._num_dropped.labels(model, reason).inc(num_texts)

    def _new(self, kind: Any, name: str, text: str, labels: Sequence[str] = ()) -> Any:
        more = {"buckets": SECONDS_BUCKETS} if kind is Histogram else {}
        metric = kind(name, text, labels, registry=self.registry, **more)
        metric.labels = cache(metric.labels)  # the library takes a lock to look a series up
        return metric

    def _rpcs(self) -> None:
        self._rpc_started = self._new(
            Counter, "grpc_server_started_total", "Calls that have come", RPC_LABELS
        )
        self._rpc_handled = self._new(
            Counter,
            "grpc_server_handled_total",
            "Calls that have ended, by status code",
            (*RPC_LABELS, "grpc_code"),
        )
        self._rpc_seconds = self._new(
            Histogram, "grpc_server_handling_seconds", "Time from call to status", RPC_LABELS
        )
        self._num_refused = self._new(
            Counter, "attendant_refused_calls_total", "Calls refused at once", ("reason",)
        )
        for reason in REFUSALS:
            self._num_refused.labels(reason)

    def _models(self) -> None:
        model = ("model",)
        self._model_info = self._new(
            Gauge, "attendant_model_info", "1 for each model", ("model", "kind", "precision")
        )
        self._queue_seconds = self._new(
            Histogram, "attendant_queue_seconds", "Wait of a call's first text", model
        )
        self._call_seconds = self._new(
            Histogram, "attendant_call_seconds", "Time of a call in the engine", model
        )
        self._first_token_seconds = self._new(
            Histogram, "attendant_first_token_seconds", "Time to a call's first token", model
        )
        self._num_input_tokens = self._new(
            Counter, "attendant_input_tokens_total", "Tokens read, without padding", model
        )
        self._num_output_tokens = self._new(
            Counter, "attendant_output_tokens_total", "Tokens of finished hypotheses", model
        )
        self._num_dropped = self._new(
            Counter,
            "attendant_dropped_texts_total",
            "Admitted texts left without an answer",
            ("model", "reason"),
        )
        texts = {
            "attendant_queued_texts": "Texts that wait",
            "attendant_active_sentences": "Sentences that are being decoded",
            "attendant_rows_used": "Hypotheses that are being decoded",
            "attendant_max_rows": "Hypotheses that can be decoded together",
            "attendant_cache_bytes": "Memory of the caches",
            "attendant_max_cache_bytes": "Memory of the caches when all widths are full",
        }
        self._gauges = {name: self._new(Gauge, name, text, model) for name, text in texts.items()}

    def _steps(self) -> None:
        model = ("model",)
        self._step_seconds = self._new(
            Histogram, "attendant_step_seconds", "Time of a decoding step", model
        )
        self._num_steps = self._new(Counter, "attendant_steps_total", "Decoding steps", model)
        self._num_step_rows = self._new(
            Counter, "attendant_step_rows_total", "Rows decoded, over all steps", model
        )
        self._num_saturated_steps = self._new(
            Counter,
            "attendant_saturated_steps_total",
            "Decoding steps that began while texts were waiting",
            model,
        )
        self._num_saturated_step_rows = self._new(
            Counter,
            "attendant_saturated_step_rows_total",
            "Rows decoded in steps that began while texts were waiting",
            model,
        )

    def _batches(self) -> None:
        labels = ("model", "graph")
        self._batch_seconds = self._new(
            Histogram, "attendant_batch_seconds", "Time of a batch", labels
        )
        self._num_batch_texts = self._new(
            Counter, "attendant_batch_texts_total", "Texts in batches", labels
        )
        self._num_batch_tokens = self._new(
            Counter, "attendant_batch_tokens_total", "Tokens in batches, without padding", labels
        )
        self._num_batch_padded_tokens = self._new(
            Counter, "attendant_batch_padded_tokens_total", "Tokens in batches, padded", labels
        )
        self._of_batches = (
            self._batch_seconds,
            self._num_batch_texts,
            self._num_batch_tokens,
            self._num_batch_padded_tokens,
        )
