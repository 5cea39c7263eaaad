"""Updates the metrics from reports of the engine and records of calls.

Every series exists from the start, so that rates are correct from the first event on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attendant_server.callers import ANONYMOUS, KEY, Quota
from attendant_server.engine.models import CacheFigures
from attendant_server.engine.reports import BatchReport, StepReport
from attendant_server.observability.metric_definitions import MetricDefinitions
from attendant_server.observability.metrics_server import RESULTS as CONNECTION_RESULTS
from attendant_server.records import BETWEEN_MODELS, CallRecord, Method
from attendant_server.security.authentication import RESULTS

REFUSALS = ("queue_full", "queue_wait", "unavailable", "concurrency", "quota", "memory")
DROPS = ("cancelled", "expired", "failed")
METHODS = {
    "translation": (
        *("Translate", "StreamTranslate", "BulkTranslate", "Score"),
        *("Tokenize", "GetAttention"),
    ),
    "embedding": (
        *("Embed", "BulkEmbed", "EmbedTokens", "EmbedSparse", "Similarity"),
        *("FillMask", "Classify", "Rerank", "Tokenize", "GetAttention"),
    ),
    "language_model": ("Generate", "StreamGenerate", "ScoreText", "Tokenize"),
}
DECODING_KINDS = ("translation", "language_model")
CHANGES = ("loaded", "failed", "unloaded")
DOWNLOADS = ("completed", "interrupted", "failed")
DECODING = ("Translate", "StreamTranslate", "BulkTranslate", "Generate", "StreamGenerate")
WITHOUT_ENGINE = ("Tokenize",)
OTHER = "other"
"""The callers with tokens or certificates together: their names have no bound."""
CALL_RESULTS = ("ok", "refused", "failed")
REFUSING_CODES = ("RESOURCE_EXHAUSTED", "UNAVAILABLE")


class Metrics:
    """Receives the reports of the engine and the records of calls."""

    def __init__(self) -> None:
        self._definitions = MetricDefinitions()
        self.registry = self._definitions.registry
        self._labels: dict[str, tuple[str, str]] = {}
        for reason in REFUSALS:
            self._definitions.refused_calls.labels(reason)
        for result in RESULTS:
            self._definitions.authentications.labels(result)
        for result in CHANGES:
            self._definitions.model_changes.labels(result)
        for result in DOWNLOADS:
            self._definitions.bundle_downloads.labels(result)
        for result in CONNECTION_RESULTS:
            self._definitions.metrics_connections.labels(result)
        self.add_callers((ANONYMOUS.name, OTHER))

    def describe_server(self, **facts: str) -> None:
        """Set the labels of the metric ``attendant_build``."""
        self._definitions.build.info(facts)

    def add_methods(self, methods: Iterable[Method], codes: Sequence[str]) -> None:
        """Start the series of gRPC methods at zero."""
        for method in methods:
            self._definitions.rpcs_started.labels(*method)
            self._definitions.rpc_seconds.labels(*method)
            for code in codes:
                self._definitions.rpcs_handled.labels(*method, code)

    def add_model(self, model: str, kind: str, precision: str, codes: Sequence[str]) -> None:
        """Start the series of ``<name>/<version>``, a model of one of the kinds of `METHODS`."""
        name, _, version = model.rpartition("/")
        labels = self._labels[model] = (name, version)
        self._definitions.model.labels(*labels).info({"kind": kind, "precision": precision})
        for metric in self._of_models(kind):
            metric.labels(*labels)
        if kind in DECODING_KINDS:
            self.watch_caches(model, lambda: CacheFigures(needed=0, allocated=0))
        for reason in DROPS:
            self._definitions.dropped_texts.labels(*labels, reason)
        for method in METHODS[kind]:
            for metric in self._of_methods(method):
                metric.labels(*labels, method)
            for code in codes:
                self._definitions.calls.labels(*labels, method, code)

    def remove_model(self, model: str) -> None:
        """End the series of a model that is no longer served. Its calls have ended."""
        self._definitions.remove_model(self._labels.pop(model))

    def on_model_change(self, result: str) -> None:
        """A model was loaded or unloaded, or could not be loaded."""
        self._definitions.model_changes.labels(result).inc()

    def on_bundle_download(self, result: str) -> None:
        """A download of a bundle has ended, or is tried again. Any thread."""
        self._definitions.bundle_downloads.labels(result).inc()

    def on_downloaded_bytes(self, num_bytes: int) -> None:
        """Bytes of bundles have arrived. Any thread."""
        self._definitions.downloaded_bytes.inc(num_bytes)

    def watch_bundles_cache(self, read: Callable[[], float], max_bytes: int) -> None:
        """Add the gauges of the cache of bundles from a URL."""
        text = "Size of the cache of bundles from a URL"
        self._definitions.gauge("attendant_bundles_cache_bytes", text).set_function(read)
        text = "Size that the cache of bundles may have"
        self._definitions.gauge("attendant_max_bundles_cache_bytes", text).set(max_bytes)

    def add_callers(self, names: Iterable[str]) -> None:
        """Start the series of callers at zero. Any thread."""
        metrics = self._definitions
        for name in names:
            metrics.caller_texts.labels(name)
            metrics.caller_tokens.labels(name)
            for result in CALL_RESULTS:
                metrics.caller_calls.labels(name, result)
            for quota in Quota._fields:
                metrics.caller_refused_calls.labels(name, quota)

    def watch(self, gauges: Mapping[str, Callable[[], float]]) -> None:
        """Add gauges of the server by name; their functions are called at every scrape."""
        for name, read in gauges.items():
            self._definitions.gauges[name].set_function(read)

    def watch_model(self, model: str, gauges: Mapping[str, Callable[[], float]]) -> None:
        """Add gauges of a model by name; their functions are called at every scrape."""
        known = self._definitions.gauges_of_all | self._definitions.gauges_of_decoding
        for name, read in gauges.items():
            known[name].labels(*self._labels[model]).set_function(read)

    def watch_caches(self, model: str, read: Callable[[], CacheFigures]) -> None:
        """Add the gauges of a model's cache memory; ``read`` is called once at every scrape."""
        self._definitions.caches.read[self._labels[model]] = read

    def watch_device_memory(self, read: Callable[[], tuple[int, int]]) -> None:
        """Add gauges of GPU memory; ``read`` returns the used and the total bytes."""
        texts = {
            "attendant_device_memory_used_bytes": "Memory of the GPU in use, by any process",
            "attendant_device_memory_bytes": "Memory of the GPU",
        }
        for i, (name, text) in enumerate(texts.items()):
            self._definitions.gauge(name, text).set_function(lambda i=i: read()[i])

    def watch_certificate(self, read: Callable[[], float]) -> None:
        """Add the gauge of the certificate's expiry; ``read`` returns it in Unix time."""
        self._definitions.gauge(
            "attendant_tls_certificate_expiry_timestamp_seconds",
            "When the server's certificate expires",
        ).set_function(read)

    def on_call_started(self, record: CallRecord) -> None:
        """A call has started."""
        self._definitions.rpcs_started.labels(*record.method).inc()

    def on_call_ended(self, record: CallRecord) -> None:
        """A call has ended."""
        assert record.ended is not None
        metrics, seconds = self._definitions, record.ended - record.started
        exemplar = {"trace_id": record.trace_id} if record.trace_id else None
        metrics.rpcs_handled.labels(*record.method, record.code).inc()
        metrics.rpc_seconds.labels(*record.method).observe(seconds, exemplar)
        if record.method.serves_models:
            self._count_for_caller(record)
        for model in self._model_labels(record):
            self._count_for_model(record, model, seconds, exemplar)

    def _count_for_model(
        self,
        record: CallRecord,
        model: tuple[str, str],
        seconds: float,
        exemplar: dict[str, str] | None,
    ) -> None:
        metrics, call = self._definitions, (*model, record.operation)
        metrics.calls.labels(*call, record.code).inc()
        if not record.has_part_records:
            self._count_bad_texts(record, model)
        if record.code == "OK":
            metrics.call_seconds.labels(*call).observe(seconds, exemplar)
            self._time(record, call, exemplar)

    def on_part_ended(self, record: CallRecord) -> None:
        """Texts of a stream have been answered."""
        self._count_texts_of_caller(record)
        for model in self._model_labels(record):
            self._count_bad_texts(record, model)
            self._time(record, (*model, record.operation), None)

    def _model_labels(self, record: CallRecord) -> list[tuple[str, str]]:
        """The labels of the models of a call; none if none was found, or it was just unloaded."""
        found = map(self._labels.get, record.model.split(BETWEEN_MODELS))
        return [labels for labels in found if labels is not None]

    def _count_bad_texts(self, record: CallRecord, model: tuple[str, str]) -> None:
        metrics = self._definitions
        if record.num_truncated_texts:
            metrics.truncated_texts.labels(*model).inc(record.num_truncated_texts)
        if record.num_invalid_texts:
            metrics.invalid_texts.labels(*model).inc(record.num_invalid_texts)

    def on_refused(self, reason: str) -> None:
        """A call was not admitted."""
        self._definitions.refused_calls.labels(reason).inc()

    def on_engine_restart(self) -> None:
        """All models were loaded again after the engine had died."""
        self._definitions.engine_restarts.inc()

    def on_authentication(self, result: str) -> None:
        """A call was authenticated, or not; ``result`` is one of `RESULTS`."""
        self._definitions.authentications.labels(result).inc()

    def on_metrics_connection(self, result: str) -> None:
        """A connection to the metrics has ended."""
        self._definitions.metrics_connections.labels(result).inc()

    def on_step(self, model: str, report: StepReport) -> None:
        """A decoding step has ended."""
        labels, metrics = self._labels.get(model), self._definitions
        if labels is None:  # the model was removed; its run hung until now
            return
        metrics.step_seconds.labels(*labels).observe(report.seconds)
        metrics.step_rows.labels(*labels).observe(report.num_rows)
        if report.num_output_tokens:
            metrics.output_tokens.labels(*labels).inc(report.num_output_tokens)
        if report.num_waiting:
            metrics.saturated_step_rows.labels(*labels).inc(report.num_rows)
            metrics.saturated_step_max_rows.labels(*labels).inc(report.max_rows)

    def on_batch(self, model: str, report: BatchReport) -> None:
        """A batch has been run."""
        labels, metrics = self._labels.get(model), self._definitions
        if labels is None:
            return
        is_scored = report.graph == "scorer"
        seconds, texts, tokens, padded_tokens = (
            metric.labels(*labels)
            for metric in (metrics.score_batches if is_scored else metrics.encode_batches)
        )
        seconds.observe(report.seconds)
        texts.observe(report.num_texts)
        tokens.inc(report.num_tokens)
        padded_tokens.inc(report.num_padded_tokens)
        metrics.input_tokens.labels(*labels).inc(report.num_tokens)

    def on_dropped(self, model: str, reason: str, num_texts: int) -> None:
        """Texts were left without an answer."""
        if labels := self._labels.get(model):
            self._definitions.dropped_texts.labels(*labels, reason).inc(num_texts)

    def _count_texts_of_caller(self, record: CallRecord) -> None:
        metrics, caller = self._definitions, _caller_label(record)
        metrics.caller_texts.labels(caller).inc(record.num_counted_texts)
        metrics.caller_tokens.labels(caller).inc(record.num_counted_tokens)

    def _count_for_caller(self, record: CallRecord) -> None:
        metrics, caller = self._definitions, _caller_label(record)
        is_refused = record.code in REFUSING_CODES
        result = "ok" if record.code == "OK" else "refused" if is_refused else "failed"
        metrics.caller_calls.labels(caller, result).inc()
        if not record.has_part_records:
            self._count_texts_of_caller(record)
        if record.exceeded_quota:
            metrics.refused_calls.labels("quota").inc()
            metrics.caller_refused_calls.labels(caller, record.exceeded_quota).inc()

    def _time(
        self, record: CallRecord, call: tuple[str, str, str], exemplar: dict[str, str] | None
    ) -> None:
        """Observe the duration of each phase of an answered call.

        Phases have no exemplars: a trace contains the phases, and exemplars would double the cost.
        """
        for name, start, end in record.phases():
            if name in self._definitions.phase_seconds:
                self._definitions.phase_seconds[name].labels(*call).observe(end - start)
        engine = record.engine
        if engine.submitted is None or engine.first_token is None or engine.finished is None:
            return
        seconds = engine.first_token - engine.submitted
        self._definitions.time_to_first_token.labels(*call).observe(seconds, exemplar)
        num_further = record.longest_output - engine.num_first_tokens
        if num_further > 0:
            each = (engine.finished - engine.first_token) / num_further
            self._definitions.time_per_output_token.labels(*call).observe(each, exemplar)

    def _of_models(self, kind: str) -> Iterable[Any]:
        metrics = self._definitions
        yield from (metrics.input_tokens, metrics.truncated_texts, metrics.invalid_texts)
        yield from (*metrics.encode_batches, *metrics.gauges_of_all.values())
        if kind in DECODING_KINDS:
            yield from (metrics.output_tokens, metrics.step_seconds, metrics.step_rows)
            yield from (metrics.saturated_step_rows, metrics.saturated_step_max_rows)
            yield from metrics.score_batches
            yield from metrics.gauges_of_decoding.values()

    def _of_methods(self, method: str) -> Iterable[Any]:
        phases = self._definitions.phase_seconds
        yield from (self._definitions.call_seconds, phases["tokenize"])
        if method not in WITHOUT_ENGINE:
            yield from (phases["queue"], phases["encode"])
        if method in DECODING:
            yield phases["decode"]
            yield from (
                self._definitions.time_to_first_token,
                self._definitions.time_per_output_token,
            )


def _caller_label(record: CallRecord) -> str:
    name = record.caller.name
    return name if name == ANONYMOUS.name or name.startswith(KEY) else OTHER


class NoMetrics(Metrics):
    """Metrics of a server without a metrics port: does nothing."""

    def on_call_started(self, record: CallRecord) -> None:
        """A call has started."""

    def on_call_ended(self, record: CallRecord) -> None:
        """A call has ended."""

    def on_part_ended(self, record: CallRecord) -> None:
        """Texts of a stream have been answered."""

    def on_refused(self, reason: str) -> None:
        """A call was not admitted."""

    def on_authentication(self, result: str) -> None:
        """A call was authenticated, or not."""

    def on_model_change(self, result: str) -> None:
        """A model was loaded or unloaded, or could not be loaded."""

    def on_step(self, model: str, report: StepReport) -> None:
        """A decoding step has ended."""

    def on_batch(self, model: str, report: BatchReport) -> None:
        """A batch has been run."""

    def on_dropped(self, model: str, reason: str, num_texts: int) -> None:
        """Texts were left without an answer."""
