import itertools
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from attendant_server.engine.calls import CallTimings
from attendant_server.engine.models import CacheFigures
from attendant_server.engine.reports import BatchReport, StepReport
from attendant_server.observability.metrics import DROPS, METHODS, REFUSALS, Metrics, NoMetrics
from attendant_server.observability.metrics_server import MetricsLimits, MetricsServer
from attendant_server.records import CallRecord, Method
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

MODEL = "en-de/1"
LABELS = {"model": "en-de", "version": "1"}
TRANSLATE = Method.of("attendant.v1.TranslationService", "Translate", False, False)
TRACE_ID = "0123456789abcdef" * 2


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.add_methods([TRANSLATE], ["OK", "UNAVAILABLE"])
    metrics.add_model(MODEL, "translation", "int8", ["OK", "UNAVAILABLE"])
    return metrics


@pytest.fixture
def url(metrics: Metrics) -> Iterator[str]:
    server = new_server(metrics)
    yield f"http://127.0.0.1:{server.start('127.0.0.1', 0)}/metrics"
    server.close()


def new_server(metrics: Metrics) -> MetricsServer:
    return MetricsServer(metrics.registry, lambda: None, MetricsLimits(8, 60.0))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def answered(**changes: Any) -> CallRecord:
    """A record of a translation with one second or more in each phase."""
    timings = CallTimings(3.0, 5.0, 8.0, first_token=9.0, num_first_tokens=1, finished=16.0)
    values: dict[str, Any] = {
        "started": 1.0,
        "tokenization_started": 1.5,
        "tokenization_ended": 2.5,
        "ended": 17.0,
        "model": MODEL,
        "engine": timings,
        "longest_output": 8,
    }
    return CallRecord(TRANSLATE, **(values | changes))


def test_every_series_of_a_model_exists_before_anything_has_happened(metrics: Metrics):
    for name in (
        "attendant_input_tokens_total",
        "attendant_output_tokens_total",
        "attendant_saturated_step_rows_total",
        "attendant_saturated_step_max_rows_total",
        "attendant_step_rows_count",
        "attendant_step_seconds_count",
        "attendant_truncated_texts_total",
        "attendant_invalid_texts_total",
        "attendant_encode_batch_tokens_total",
        "attendant_score_batch_padded_tokens_total",
        "attendant_queued_texts",
        "attendant_rows_used",
    ):
        assert value(metrics, name, **LABELS) == 0
    for reason in DROPS:
        assert value(metrics, "attendant_dropped_texts_total", reason=reason, **LABELS) == 0
    for reason in REFUSALS:
        assert value(metrics, "attendant_refused_calls_total", reason=reason) == 0
    for method in METHODS["translation"]:
        name = "attendant_calls_total"
        assert value(metrics, name, method=method, code="UNAVAILABLE", **LABELS) == 0
        assert value(metrics, "attendant_call_seconds_count", method=method, **LABELS) == 0
    for phase in ("queue", "encode", "decode", "time_to_first_token", "time_per_output_token"):
        name = f"attendant_{phase}_seconds_count"
        assert value(metrics, name, method="Translate", **LABELS) == 0
    info = {"kind": "translation", "precision": "int8", **LABELS}
    assert value(metrics, "attendant_model_info", **info) == 1


def test_a_model_has_no_series_for_what_it_cannot_do(metrics: Metrics):
    metrics.add_model("bert/1", "embedding", "int8", ["OK"])
    bert = {"model": "bert", "version": "1"}
    assert value(metrics, "attendant_step_rows_count", **bert) is None
    assert value(metrics, "attendant_rows_used", **bert) is None
    assert value(metrics, "attendant_score_batch_texts_count", **bert) is None
    assert value(metrics, "attendant_decode_seconds_count", method="Embed", **bert) is None
    assert value(metrics, "attendant_queue_seconds_count", method="Tokenize", **bert) is None
    assert value(metrics, "attendant_encode_batch_texts_count", **bert) == 0
    assert value(metrics, "attendant_queue_seconds_count", method="FillMask", **bert) == 0


def test_the_memory_of_a_device_is_asked_for_whenever_it_is_looked_at(metrics: Metrics):
    assert value(metrics, "attendant_device_memory_bytes") is None
    used = [10]
    metrics.watch_device_memory(lambda: (used[0], 80))
    for used[0] in (10, 20):
        assert value(metrics, "attendant_device_memory_used_bytes") == used[0]
    assert value(metrics, "attendant_device_memory_bytes") == 80


def test_steps_that_began_while_texts_waited_are_counted_apart(metrics: Metrics):
    for num_waiting, num_rows in ((0, 3), (5, 8)):
        metrics.on_step(MODEL, StepReport(num_rows, 8, num_waiting, 4, 0.01))
    assert value(metrics, "attendant_step_rows_count", **LABELS) == 2
    assert value(metrics, "attendant_step_rows_sum", **LABELS) == 11
    assert value(metrics, "attendant_step_rows_bucket", le="4.0", **LABELS) == 1
    assert value(metrics, "attendant_saturated_step_rows_total", **LABELS) == 8
    assert value(metrics, "attendant_saturated_step_max_rows_total", **LABELS) == 8
    assert value(metrics, "attendant_output_tokens_total", **LABELS) == 8


@pytest.mark.parametrize(
    ("graph", "verb"), [("encoder", "encode"), ("embedder", "encode"), ("scorer", "score")]
)
def test_batches_tell_their_padding(metrics: Metrics, graph: str, verb: str):
    metrics.on_batch(MODEL, BatchReport(graph, 3, 20, 30, 0.01))
    for other in ("encode", "score"):
        times = 1 if other == verb else 0
        name = f"attendant_{other}_batch"
        assert value(metrics, f"{name}_seconds_count", **LABELS) == times
        assert value(metrics, f"{name}_texts_sum", **LABELS) == 3 * times
        assert value(metrics, f"{name}_tokens_total", **LABELS) == 20 * times
        assert value(metrics, f"{name}_padded_tokens_total", **LABELS) == 30 * times
    assert value(metrics, "attendant_input_tokens_total", **LABELS) == 20


def test_a_call_tells_where_its_time_went(metrics: Metrics):
    metrics.on_call_ended(answered())
    times = {
        "call": 16.0,
        "tokenize": 1.0,
        "queue": 2.0,
        "encode": 3.0,
        "decode": 8.0,
        "time_to_first_token": 6.0,
        "time_per_output_token": 1.0,
    }
    for name, seconds in times.items():
        labels = {"method": "Translate", **LABELS}
        assert value(metrics, f"attendant_{name}_seconds_sum", **labels) == seconds


@pytest.mark.parametrize("num_tokens", [1, 2])
def test_a_translation_of_one_step_has_no_time_for_further_tokens(
    metrics: Metrics, num_tokens: int
):
    record = answered(longest_output=num_tokens)
    record.engine.num_first_tokens = num_tokens
    metrics.on_call_ended(record)
    labels = {"method": "Translate", **LABELS}
    assert value(metrics, "attendant_time_to_first_token_seconds_count", **labels) == 1
    assert value(metrics, "attendant_time_per_output_token_seconds_count", **labels) == 0


def test_only_calls_that_were_answered_count_in_latencies(metrics: Metrics):
    metrics.on_call_ended(answered(code="UNAVAILABLE"))
    call = {"method": "Translate", **LABELS}
    assert value(metrics, "attendant_calls_total", code="UNAVAILABLE", **call) == 1
    assert value(metrics, "attendant_call_seconds_count", **call) == 0
    assert value(metrics, "attendant_queue_seconds_count", **call) == 0


def test_texts_that_were_cut_or_could_not_be_read_are_counted(metrics: Metrics):
    metrics.on_call_ended(answered(num_truncated_texts=2, num_invalid_texts=3))
    assert value(metrics, "attendant_truncated_texts_total", **LABELS) == 2
    assert value(metrics, "attendant_invalid_texts_total", **LABELS) == 3


def test_half_a_millisecond_is_told_from_a_whole_one(metrics: Metrics):
    metrics.on_step(MODEL, StepReport(1, 8, 0, 0, 0.0004))
    assert value(metrics, "attendant_step_seconds_bucket", le="0.0005", **LABELS) == 1


def test_calls_are_counted_by_method_and_code(metrics: Metrics):
    labels = {
        "grpc_service": "attendant.v1.TranslationService",
        "grpc_method": "Translate",
        "grpc_type": "unary",
    }
    assert value(metrics, "grpc_server_handled_total", grpc_code="UNAVAILABLE", **labels) == 0
    record = answered(model="")  # a call that was refused before its model was known
    metrics.on_call_started(record)
    metrics.on_call_ended(record)
    assert value(metrics, "grpc_server_started_total", **labels) == 1
    assert value(metrics, "grpc_server_handled_total", grpc_code="OK", **labels) == 1
    assert value(metrics, "grpc_server_handling_seconds_sum", **labels) == 16.0
    name = "attendant_calls_total"
    assert value(metrics, name, method="Translate", code="OK", **LABELS) == 0


def test_gauges_are_read_when_they_are_asked_for(metrics: Metrics):
    waiting = [1, 2]
    metrics.watch_model(MODEL, {"attendant_queued_texts": lambda: len(waiting)})
    metrics.watch({"attendant_concurrent_calls": lambda: len(waiting)})
    for _ in range(2):
        assert value(metrics, "attendant_queued_texts", **LABELS) == len(waiting)
        assert value(metrics, "attendant_concurrent_calls") == len(waiting)
        waiting.clear()


def test_needed_and_allocated_memory_of_caches_are_of_one_moment_in_every_scrape(metrics: Metrics):
    moments = itertools.count(1)
    metrics.watch_caches(MODEL, lambda: CacheFigures(*[next(moments)] * 2))
    scrapes: list[list[float]] = [[], []]
    for families in zip(metrics.registry.collect(), metrics.registry.collect(), strict=True):
        for family, scrape in zip(families, scrapes, strict=True):
            if family.name in ("attendant_cache_needed_bytes", "attendant_cache_bytes"):
                scrape += [sample.value for sample in family.samples]
    assert scrapes == [[1, 1], [2, 2]]


def test_metrics_are_shown_at_their_path_and_nowhere_else(metrics: Metrics, url: str):
    with urllib.request.urlopen(url) as response:
        families = {f.name for f in text_string_to_metric_families(response.read().decode())}
    assert {"attendant_step_rows", "grpc_server_handled", "process_open_fds"} <= families
    assert not [name for name in families if name.endswith("_created")]
    for other in ("", "/", "/metrics/", "/metrics/x", "/favicon.ico", "/Metrics"):
        with pytest.raises(urllib.error.HTTPError) as failure:
            urllib.request.urlopen(url.removesuffix("/metrics") + other)
        assert failure.value.code == 404
        failure.value.close()


def test_metrics_are_shown_until_closed(metrics: Metrics):
    server = new_server(metrics)
    port = server.start("127.0.0.1", 0)
    server.close()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")


def test_latencies_of_traced_calls_have_the_id_of_the_trace_as_exemplar(metrics: Metrics, url: str):
    metrics.on_call_ended(answered())
    metrics.on_call_ended(answered(trace_id=TRACE_ID, ended=100.0))
    request = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text"})
    with urllib.request.urlopen(request) as response:
        families = list(open_metrics_families(response.read().decode()))
    exemplars = {
        (sample.name, sample.labels["le"]): sample.exemplar
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    }
    names = ("call", "time_to_first_token", "time_per_output_token")
    latencies = {f"attendant_{name}_seconds_bucket" for name in names}
    assert {name for name, _ in exemplars} == {"grpc_server_handling_seconds_bucket", *latencies}
    whole = exemplars["attendant_call_seconds_bucket", "+Inf"]
    assert whole.labels == {"trace_id": TRACE_ID}
    assert whole.value == 99.0


def test_a_server_without_metrics_counts_nothing():
    metrics = NoMetrics()
    metrics.add_model(MODEL, "translation", "int8", ["OK"])
    metrics.on_call_started(answered())
    metrics.on_call_ended(answered())
    metrics.on_refused("queue_full")
    metrics.on_step(MODEL, StepReport(1, 8, 1, 1, 0.01))
    metrics.on_batch(MODEL, BatchReport("encoder", 3, 20, 30, 0.01))
    metrics.on_dropped(MODEL, "failed", 1)
    counted = [s for m in metrics.registry.collect() for s in m.samples if s.name[:4] == "grpc"]
    assert not counted
    assert value(metrics, "attendant_step_rows_count", **LABELS) == 0
    assert value(metrics, "attendant_refused_calls_total", reason="queue_full") == 0


def test_two_servers_in_one_process_count_apart():
    first, second = Metrics(), Metrics()
    first.on_refused("queue_full")
    assert value(second, "attendant_refused_calls_total", reason="queue_full") == 0
