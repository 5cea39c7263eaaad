import urllib.request

import pytest
from attendant_server.engine.calls import CallTimings
from attendant_server.engine.reports import BatchReport, StepReport
from attendant_server.metrics import DROPS, REFUSALS, Metrics
from attendant_server.records import Method
from prometheus_client.parser import text_string_to_metric_families

MODEL = "en-de/1"
TRANSLATE = Method.of("attendant.v1.TranslationService", "Translate", False, False)


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.add_model(MODEL, "translation", "int8")
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_every_series_of_a_model_exists_before_anything_has_happened(metrics: Metrics):
    for name in (
        "attendant_steps_total",
        "attendant_step_rows_total",
        "attendant_saturated_steps_total",
        "attendant_saturated_step_rows_total",
        "attendant_input_tokens_total",
        "attendant_output_tokens_total",
        "attendant_queue_seconds_count",
        "attendant_first_token_seconds_count",
        "attendant_call_seconds_count",
        "attendant_step_seconds_count",
    ):
        assert value(metrics, name, model=MODEL) == 0
    for reason in DROPS:
        assert value(metrics, "attendant_dropped_texts_total", model=MODEL, reason=reason) == 0
    for reason in REFUSALS:
        assert value(metrics, "attendant_refused_calls_total", reason=reason) == 0
    for graph in ("encoder", "scorer"):
        labels = {"model": MODEL, "graph": graph}
        assert value(metrics, "attendant_batch_padded_tokens_total", **labels) == 0
    info = {"model": MODEL, "kind": "translation", "precision": "int8"}
    assert value(metrics, "attendant_model_info", **info) == 1


def test_an_embedding_model_has_no_steps(metrics: Metrics):
    metrics.add_model("bert/1", "embedding", "int8")
    assert value(metrics, "attendant_steps_total", model="bert/1") is None
    assert value(metrics, "attendant_batch_texts_total", model="bert/1", graph="embedder") == 0


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
    assert value(metrics, "attendant_steps_total", model=MODEL) == 2
    assert value(metrics, "attendant_step_rows_total", model=MODEL) == 11
    assert value(metrics, "attendant_saturated_steps_total", model=MODEL) == 1
    assert value(metrics, "attendant_saturated_step_rows_total", model=MODEL) == 8
    assert value(metrics, "attendant_output_tokens_total", model=MODEL) == 8


def test_batches_tell_their_padding(metrics: Metrics):
    metrics.on_batch(MODEL, BatchReport("encoder", 3, 20, 30, 0.01))
    labels = {"model": MODEL, "graph": "encoder"}
    assert value(metrics, "attendant_batch_texts_total", **labels) == 3
    assert value(metrics, "attendant_batch_tokens_total", **labels) == 20
    assert value(metrics, "attendant_batch_padded_tokens_total", **labels) == 30
    assert value(metrics, "attendant_input_tokens_total", model=MODEL) == 20


def test_times_of_a_call_are_counted_from_its_admission(metrics: Metrics):
    timings = CallTimings(submitted=1.0, started=1.5, encoded=2.0, first_token=3.0, finished=5.0)
    metrics.on_answered(MODEL, timings)
    assert value(metrics, "attendant_queue_seconds_sum", model=MODEL) == 0.5
    assert value(metrics, "attendant_first_token_seconds_sum", model=MODEL) == 2.0
    assert value(metrics, "attendant_call_seconds_sum", model=MODEL) == 4.0


def test_half_a_millisecond_is_told_from_a_whole_one(metrics: Metrics):
    metrics.on_step(MODEL, StepReport(1, 8, 0, 0, 0.0004))
    bucket = "attendant_step_seconds_bucket"
    assert value(metrics, bucket, model=MODEL, le="0.0005") == 1


def test_calls_are_counted_by_method_and_code(metrics: Metrics):
    metrics.add_methods([TRANSLATE], ["OK", "UNAVAILABLE"])
    labels = {
        "grpc_service": "attendant.v1.TranslationService",
        "grpc_method": "Translate",
        "grpc_type": "unary",
    }
    assert value(metrics, "grpc_server_handled_total", grpc_code="UNAVAILABLE", **labels) == 0
    metrics.on_rpc_started(TRANSLATE)
    metrics.on_rpc_handled(TRANSLATE, "OK", 0.2)
    assert value(metrics, "grpc_server_started_total", **labels) == 1
    assert value(metrics, "grpc_server_handled_total", grpc_code="OK", **labels) == 1
    assert value(metrics, "grpc_server_handling_seconds_sum", **labels) == 0.2


def test_gauges_are_read_when_they_are_asked_for(metrics: Metrics):
    waiting = [1, 2]
    metrics.watch(MODEL, {"attendant_queued_texts": lambda: len(waiting)})
    assert value(metrics, "attendant_queued_texts", model=MODEL) == 2
    waiting.clear()
    assert value(metrics, "attendant_queued_texts", model=MODEL) == 0


def test_metrics_are_shown_over_http_until_closed(metrics: Metrics):
    port, close = metrics.serve("127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url) as response:
        families = {f.name for f in text_string_to_metric_families(response.read().decode())}
    close()
    assert {"attendant_steps", "grpc_server_handled", "process_open_fds"} <= families
    assert not [name for name in families if name.endswith("_created")]
    with pytest.raises(OSError):
        urllib.request.urlopen(url)


def test_the_gauges_of_rows_are_called_like_the_setting(metrics: Metrics):
    metrics.watch(MODEL, {"attendant_max_rows": lambda: 64, "attendant_rows_used": lambda: 3})
    assert value(metrics, "attendant_max_rows", model=MODEL) == 64
    assert value(metrics, "attendant_rows_used", model=MODEL) == 3


def test_two_servers_in_one_process_count_apart():
    first, second = Metrics(), Metrics()
    first.on_refused("queue_full")
    assert value(second, "attendant_refused_calls_total", reason="queue_full") == 0
