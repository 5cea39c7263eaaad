"""All metrics with their names, types and labels; docs/operations.md lists them."""

from collections.abc import Callable, Iterator, Sequence
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
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from attendant_server.engine.models import CacheFigures

SECONDS_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0
)  # fmt: skip
COUNT_BUCKETS = tuple(2.0**i for i in range(11))
MODEL = ("model", "version")
CALL = (*MODEL, "method")
RPC = ("grpc_service", "grpc_method", "grpc_type")


class Registry(CollectorRegistry):
    """Drops the ``_created`` samples, which would add one series per counter and histogram."""

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        for metric in super().collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


class CacheGauges(Collector):
    """The needed and the allocated cache memory of each model, both read at the same moment."""

    def __init__(self) -> None:
        self.read: dict[tuple[str, str], Callable[[], CacheFigures]] = {}
        """A function for each model, by its values of the labels `MODEL`."""

    def collect(self) -> Iterator[Metric]:
        """Both metrics."""
        needed = GaugeMetricFamily(
            "attendant_cache_needed_bytes",
            "Memory that the running sentences need of the caches",
            labels=MODEL,
        )
        allocated = GaugeMetricFamily("attendant_cache_bytes", "Memory of the caches", labels=MODEL)
        for labels, read in self.read.items():
            figures = read()
            needed.add_metric(labels, figures.needed)
            allocated.add_metric(labels, figures.allocated)
        yield from (needed, allocated)

    describe = collect
    """The registry needs the names of the metrics."""


class MetricDefinitions:
    """The metrics of one server. A metric has no samples until its labels are first used."""

    def __init__(self) -> None:
        self.registry = Registry()
        self._of_models: list[Any] = []
        ProcessCollector(registry=self.registry)
        self._calls()
        self._callers()
        self._texts()
        self._steps()
        self.encode_batches = self._batches("encode", "Runs of an encoder or embedding model")
        self.score_batches = self._batches("score", "Runs that score pairs")
        self._server()

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Any:
        """Add a gauge that only some servers have."""
        return self._new(Gauge, name, text, labels)

    def remove_model(self, labels: tuple[str, str]) -> None:
        """Remove all series with these values of the labels `MODEL`."""
        self.caches.read.pop(labels, None)
        for metric in self._of_models:
            metric.labels.cache_clear()
            metric.remove_by_labels(dict(zip(MODEL, labels, strict=True)))

    def _calls(self) -> None:
        self.rpcs_started = self._new(
            Counter, "grpc_server_started_total", "Calls that have started", RPC
        )
        self.rpcs_handled = self._new(
            Counter, "grpc_server_handled_total", "Calls that have ended", (*RPC, "grpc_code")
        )
        self.rpc_seconds = self._seconds(
            "grpc_server_handling_seconds", "Time from call to status", RPC
        )
        self.calls = self._new(
            Counter, "attendant_calls_total", "Ended calls to a model", (*CALL, "code")
        )
        self.call_seconds = self._seconds("attendant_call_seconds", "Time of the whole call", CALL)
        self.phase_seconds = {
            "tokenize": self._seconds("attendant_tokenize_seconds", "Time to tokenize texts", CALL),
            "queue": self._seconds("attendant_queue_seconds", "Wait of a call's first text", CALL),
            "encode": self._seconds(
                "attendant_encode_seconds", "Time until a call's texts are encoded", CALL
            ),
            "decode": self._seconds(
                "attendant_decode_seconds", "Time until encoded texts are translated", CALL
            ),
        }
        self.time_to_first_token = self._seconds(
            "attendant_time_to_first_token_seconds", "Time from admission to a first token", CALL
        )
        self.time_per_output_token = self._seconds(
            "attendant_time_per_output_token_seconds",
            "Time for each token after the first step",
            CALL,
        )
        self.refused_calls = self._new(
            Counter, "attendant_refused_calls_total", "Calls refused at once", ("reason",)
        )
        self.authentications = self._new(
            Counter, "attendant_authentication_total", "Authentications of calls", ("result",)
        )
        self.metrics_connections = self._new(
            Counter,
            "attendant_metrics_connections_total",
            "Ended connections to the metrics",
            ("result",),
        )

    def _callers(self) -> None:
        of_caller = ("caller",)
        self.caller_calls = self._new(
            Counter, "attendant_caller_calls_total", "Ended calls", (*of_caller, "result")
        )
        self.caller_texts = self._new(
            Counter, "attendant_caller_texts_total", "Texts counted for quotas", of_caller
        )
        self.caller_tokens = self._new(
            Counter, "attendant_caller_tokens_total", "Tokens counted for quotas", of_caller
        )
        self.caller_refused_calls = self._new(
            Counter,
            "attendant_caller_refused_calls_total",
            "Calls refused by a quota",
            (*of_caller, "quota"),
        )

    def _texts(self) -> None:
        self.input_tokens = self._new(
            Counter, "attendant_input_tokens_total", "Tokens read, without padding", MODEL
        )
        self.output_tokens = self._new(
            Counter, "attendant_output_tokens_total", "Tokens of finished hypotheses", MODEL
        )
        self.truncated_texts = self._new(
            Counter, "attendant_truncated_texts_total", "Texts that were truncated", MODEL
        )
        self.invalid_texts = self._new(
            Counter, "attendant_invalid_texts_total", "Texts that could not be read", MODEL
        )
        self.dropped_texts = self._new(
            Counter,
            "attendant_dropped_texts_total",
            "Admitted texts left without an answer",
            (*MODEL, "reason"),
        )

    def _steps(self) -> None:
        self.step_seconds = self._seconds(
            "attendant_step_seconds", "Time of a decoding step", MODEL
        )
        self.step_rows = self._counts("attendant_step_rows", "Rows in a decoding step", MODEL)
        self.saturated_step_rows = self._new(
            Counter,
            "attendant_saturated_step_rows_total",
            "Rows decoded in steps that began while texts were waiting",
            MODEL,
        )
        self.saturated_step_max_rows = self._new(
            Counter,
            "attendant_saturated_step_max_rows_total",
            "Maximum number of rows in those steps",
            MODEL,
        )

    def _batches(self, verb: str, text: str) -> tuple[Any, ...]:
        """The metrics of batches: seconds, texts, tokens and padded tokens."""
        name = f"attendant_{verb}_batch"
        return (
            self._seconds(f"{name}_seconds", f"{text}: time", MODEL),
            self._counts(f"{name}_texts", f"{text}: texts", MODEL),
            self._new(Counter, f"{name}_tokens_total", f"{text}: tokens, without padding", MODEL),
            self._new(Counter, f"{name}_padded_tokens_total", f"{text}: tokens, padded", MODEL),
        )

    def _server(self) -> None:
        self.build = self._new(Info, "attendant_build", "The server")
        self.model = self._new(Info, "attendant_model", "1 for each model", MODEL)
        self.model_changes = self._new(
            Counter, "attendant_model_changes_total", "Models loaded and unloaded", ("result",)
        )
        self.bundle_downloads = self._new(
            Counter, "attendant_bundle_downloads_total", "Downloads of bundles", ("result",)
        )
        self.downloaded_bytes = self._new(
            Counter, "attendant_downloaded_bytes_total", "Bytes of bundles that were downloaded"
        )
        self.engine_restarts = self._new(
            Counter, "attendant_engine_restarts_total", "Restarts of the engine after its death"
        )
        of_server = {
            "attendant_serving": "Whether the server reports SERVING",
            "attendant_connections": "Open TCP connections to the port of gRPC",
            "attendant_max_connections": "Connections that may be open",
            "attendant_concurrent_calls": "Calls in progress",
            "attendant_max_concurrent_calls": "Calls that may be in progress",
            "attendant_held_bytes": "Requests and answers of all calls",
            "attendant_max_held_bytes": "Requests and answers that may be held",
            "attendant_arriving_requests": "Requests that are being received",
            "attendant_waiting_requests": "Requests that wait until others were received",
            "attendant_request_streams": "Streams of requests",
            "attendant_max_arriving_requests": "Requests, and streams, that may be received",
            "attendant_arriving_health_requests": "Health requests that are being received",
            "attendant_waiting_health_requests": "Health requests that wait for others",
            "attendant_unread_answers": "Answers that their callers have not read yet",
            "attendant_memory_used_bytes": "Memory in use that counts against the limit",
            "attendant_memory_limit_bytes": "Memory that may be used",
        }
        of_all = {
            "attendant_model_serving": "Whether the model can be called",
            "attendant_queued_texts": "Texts that wait",
            "attendant_max_queued_texts": "Texts that may wait",
        }
        of_decoding = {
            "attendant_active_sentences": "Sentences that are being decoded",
            "attendant_max_active_sentences": "Sentences that can be decoded together",
            "attendant_rows_used": "Hypotheses that are being decoded",
            "attendant_max_rows": "Hypotheses that can be decoded together",
            "attendant_max_step_rows": "Hypotheses that one step can decode",
            "attendant_max_cache_bytes": "Memory that the caches may take",
        }
        self.gauges = {name: self.gauge(name, text) for name, text in of_server.items()}
        self.gauges_of_all = {name: self.gauge(name, text, MODEL) for name, text in of_all.items()}
        self.gauges_of_decoding = {
            name: self.gauge(name, text, MODEL) for name, text in of_decoding.items()
        }
        self.caches = CacheGauges()
        self.registry.register(self.caches)

    def _seconds(self, name: str, text: str, labels: Sequence[str]) -> Any:
        return self._new(Histogram, name, text, labels, buckets=SECONDS_BUCKETS)

    def _counts(self, name: str, text: str, labels: Sequence[str]) -> Any:
        return self._new(Histogram, name, text, labels, buckets=COUNT_BUCKETS)

    def _new(
        self, kind: Any, name: str, text: str, labels: Sequence[str] = (), **options: Any
    ) -> Any:
        metric = kind(name, text, labels, registry=self.registry, **options)
        metric.labels = cache(metric.labels)  # the library's look-up takes a lock
        if tuple(labels[: len(MODEL)]) == MODEL:
            self._of_models.append(metric)
        return metric
