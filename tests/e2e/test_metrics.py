"""The metrics of a real server agree with their documentation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest, FillMaskRequest
from attendant.v1.model_pb2 import GetModelRequest, TokenizeRequest
from attendant.v1.text_pb2 import TRUNCATION_RIGHT
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_server.app import Server
from attendant_server.observability import metric_definitions as series
from attendant_server.observability.metrics import Metrics
from attendant_server.settings import Settings
from prometheus_client.parser import text_string_to_metric_families

from tests.support.monitoring import OPERATIONS, Described, documented_metrics
from tests.support.serving import (
    TRANSLATION_MODEL,
    LoopThread,
    Running,
    failure_of,
    metrics_page,
    wait_until,
)

TEXT = "The dog sees the king."
REQUEST = TranslateRequest(texts=[TEXT])
EMBEDDING_MODEL = "tiny-bert/1"


def shown(text: str) -> Described:
    """The metrics of a page, by the names that queries use."""
    found: Described = {}
    for family in text_string_to_metric_families(text):
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        is_info = name.endswith("_info")
        found[name] = ("info" if is_info else family.type, frozenset(labels))
    return found


def names_of(text: str) -> set[str]:
    """All series of a page without their values."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {line.rpartition(" ")[0] for line in lines}


@pytest.fixture
def other_kinds_of_calls() -> list[Callable[[Running], Any]]:
    """Calls of all other methods, including some that fail."""
    pair = TranslationPair(source=TEXT, target="Der Hund.")
    bad = TranslateRequest(texts=[TEXT], options=TranslateOptions(beam_size=1000))
    return [
        lambda r: r.translation.Translate(REQUEST),
        lambda r: list(r.translation.StreamTranslate(StreamTranslateRequest(text=TEXT))),
        lambda r: r.translation.Score(ScoreRequest(pairs=[pair])),
        lambda r: r.embedding.Embed(EmbedRequest(texts=[TEXT])),
        lambda r: r.embedding.EmbedTokens(EmbedTokensRequest(texts=[TEXT])),
        lambda r: r.embedding.FillMask(FillMaskRequest(texts=["the [MASK] sees"])),
        lambda r: r.models.Tokenize(TokenizeRequest(texts=[TEXT], model="tiny-bert")),
        lambda r: failure_of(r.translation.Translate, bad),
        lambda r: failure_of(r.models.GetModel, GetModelRequest(model="nobody")),
    ]


OF_SOME_SERVERS = (
    *("attendant_device_memory", "attendant_tls_certificate"),
    *("attendant_bundles_cache", "attendant_max_bundles_cache"),
)
"""Beginnings of the names of metrics of servers with a GPU, with TLS or with bundles from a URL."""


def test_the_tables_of_metrics_are_what_a_server_shows(start):
    special = {name for name in documented_metrics() if name.startswith(OF_SOME_SERVERS)}
    assert len(special) == 5
    expected = {name: facts for name, facts in documented_metrics().items() if name not in special}
    assert shown(metrics_page(start().server)) == expected


def test_the_tables_have_what_a_server_with_a_gpu_tls_and_a_url_shows_more():
    metrics = Metrics()
    metrics.watch_bundles_cache(lambda: 1.0, 2)
    metrics.watch_device_memory(lambda: (1, 2))
    metrics.watch_certificate(lambda: 1.0)
    special = {m.name for m in metrics.registry.collect()} - {
        m.name for m in Metrics().registry.collect()
    }
    assert special == {name for name in documented_metrics() if name.startswith(OF_SOME_SERVERS)}
    for name in special:
        assert documented_metrics()[name] == ("gauge", frozenset())


def test_the_document_tells_the_buckets():
    seconds = ", ".join(f"{bound:g}" for bound in series.SECONDS_BUCKETS)
    assert f"({seconds})" in OPERATIONS.read_text(encoding="utf-8")
    assert tuple(2**i for i in range(11)) == series.COUNT_BUCKETS


def test_every_series_exists_before_the_first_call_and_while_models_load(
    loop: LoopThread, settings: Callable[..., Settings], other_kinds_of_calls: Any
):
    server = Server(settings())
    loop.run(server.start())
    while_loading = metrics_page(server)
    loop.run(server.load())
    before = names_of(metrics_page(server))
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            running = Running(server, loop, channel)
            for call in other_kinds_of_calls:
                call(running)
            after = names_of(metrics_page(server))
    finally:
        loop.run(server.stop())
    assert names_of(while_loading) == before == after
    assert "attendant_serving 0.0" in while_loading


def test_a_server_serves_from_the_moment_that_its_models_can_be_called_until_it_stops(
    loop: LoopThread, settings: Callable[..., Settings]
):
    server = Server(settings(lame_duck_seconds=0.0))
    loop.run(server.start())
    assert serving(server) == {0.0}
    loop.run(server.load())
    assert serving(server) == {1.0}
    loop.run(server._health.stop_serving())
    assert serving(server) == {0.0}
    loop.run(server.stop())


def serving(server: Server) -> set[float]:
    families = text_string_to_metric_families(metrics_page(server))
    names = ("attendant_serving", "attendant_model_serving")
    samples = [s for f in families for s in f.samples if s.name in names]
    assert len(samples) == 3
    return {sample.value for sample in samples}


def is_counted(running: Running, name: str, number: int, **labels: str) -> bool:
    return running.metric(name, **labels) == number


def test_answered_calls_move_their_series(start, other_kinds_of_calls):
    running = start()
    for call in other_kinds_of_calls:
        call(running)
    calls = "attendant_calls_total"
    for method in ("Translate", "StreamTranslate", "Score"):
        labels = {"model": TRANSLATION_MODEL, "method": method}
        wait_until(partial(is_counted, running, calls, 1, code="OK", **labels))
        for phase in ("call", "tokenize", "queue", "encode"):
            assert running.metric(f"attendant_{phase}_seconds_count", **labels) == 1
    for method in ("Embed", "EmbedTokens", "FillMask"):
        labels = {"model": EMBEDDING_MODEL, "method": method}
        wait_until(partial(is_counted, running, calls, 1, code="OK", **labels))
        assert running.metric("attendant_encode_seconds_count", **labels) == 1
    for phase in ("decode", "time_to_first_token", "time_per_output_token"):
        for method in ("Translate", "StreamTranslate"):
            name = f"attendant_{phase}_seconds_count"
            assert running.metric(name, model=TRANSLATION_MODEL, method=method) == 1
    labels = {"model": TRANSLATION_MODEL, "method": "Translate"}
    wait_until(lambda: running.metric(calls, code="INVALID_ARGUMENT", **labels) == 1)
    wait_until(lambda: running.metric("grpc_server_handled_total", grpc_code="NOT_FOUND") == 1)
    assert running.metric("attendant_encode_batch_texts_sum", model=TRANSLATION_MODEL) == 2
    assert running.metric("attendant_score_batch_texts_sum", model=TRANSLATION_MODEL) == 1
    assert running.metric("attendant_encode_batch_texts_sum", model=EMBEDDING_MODEL) == 3
    assert running.metric("attendant_step_rows_sum") > 0
    assert running.metric("attendant_concurrent_calls") == 0


def test_tokens_are_counted_as_answers_count_them(start):
    running = start()
    answers = [running.translation.Translate(REQUEST), running.translation.Translate(REQUEST)]
    for direction in ("input", "output"):
        told = sum(getattr(a.token_counts, f"num_{direction}_tokens") for a in answers)
        name = f"attendant_{direction}_tokens_total"
        assert running.metric(name, model=TRANSLATION_MODEL) == told > 0


def test_texts_that_are_cut_or_cannot_be_read_are_counted(start):
    running = start()
    long_text = "dog " * 1000
    cut = EmbedRequest(texts=[long_text, TEXT, long_text], truncation=TRUNCATION_RIGHT)
    running.embedding.Embed(cut)
    running.embedding.Embed(EmbedRequest(texts=[long_text, "", TEXT]))
    running.embedding.FillMask(FillMaskRequest(texts=["no mask", "a [MASK]"]))
    for name, number in {"truncated": 2, "invalid": 3}.items():
        metric = f"attendant_{name}_texts_total"
        wait_until(partial(is_counted, running, metric, number, model=EMBEDDING_MODEL))
        assert running.metric(metric, model=TRANSLATION_MODEL) == 0


def test_texts_of_a_model_that_fails_are_counted(start, monkeypatch: pytest.MonkeyPatch):
    running = start()
    monkeypatch.setattr(
        "attendant_server.runtime.translation_model.OnnxTranslationModel.encode", lambda *_: 1 / 0
    )
    failure_of(running.translation.Translate, REQUEST)
    labels = {"model": TRANSLATION_MODEL, "reason": "failed"}
    assert running.metric("attendant_dropped_texts_total", **labels) == 1


def test_a_call_to_a_model_that_is_loading_is_counted_as_refused_by_it(
    loop: LoopThread, settings: Callable[..., Settings]
):
    server = Server(settings())
    loop.run(server.start())
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        running = Running(server, loop, channel)
        failure_of(running.translation.Translate, REQUEST)
        wait_until(lambda: running.metric("attendant_calls_total", code="UNAVAILABLE") == 1)
        assert running.metric("attendant_refused_calls_total", reason="unavailable") == 1
    loop.run(server.stop())


def test_memory_and_limits_are_shown(running: Running):
    used, limit = "attendant_memory_used_bytes", "attendant_memory_limit_bytes"
    assert 0 < running.metric(used) < running.metric(limit)
    assert running.metric("process_resident_memory_bytes") > 0
    assert running.metric("attendant_max_queued_texts", model=TRANSLATION_MODEL) == 2048
    assert running.metric("attendant_max_concurrent_calls") == 512
    assert running.metric("attendant_max_rows") == 128
    assert running.metric("attendant_max_step_rows") == 128  # one thread, so one worker
    assert running.metric("attendant_max_active_sentences") == 16


def test_sentences_follow_the_threads(start):
    running = start(num_threads=3)
    assert running.metric("attendant_max_active_sentences") == 48


def test_a_server_without_metrics_answers_all_the_same(start):
    running = start(metrics_port=-1)
    assert running.server.metrics_port == 0
    assert running.translation.Translate(REQUEST).translations[0].hypotheses
