"""Traces of calls through a real server. No metric, log or span holds text of a user."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest, FillMaskRequest
from attendant.v1.model_pb2 import GetModelRequest, TokenizeRequest
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateOptions,
    TranslateRequest,
    TranslationPair,
)
from attendant_server.app import Server, StartError
from attendant_server.observability import logs
from attendant_server.observability.logs import JsonFormatter
from attendant_server.settings import Settings
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)

from tests.support.collector import Collector, running_collector
from tests.support.serving import (
    LoopThread,
    Running,
    failure_of,
    metrics_page,
    running_server,
    wait_until,
)

TEXT = "The dog sees the king."
REQUEST = TranslateRequest(texts=[TEXT])
MARKER = "Xylophonwurst"
"""A word that occurs in no model, setting or message of the server."""
CONSOLE = logs.ConsoleFormatter()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


def attributes(span: Any) -> dict[str, Any]:
    return {
        a.key: a.value.string_value if a.value.HasField("string_value") else a.value.int_value
        for a in span.attributes
    }


def test_a_call_of_a_traced_caller_is_a_part_of_its_trace_in_spans_logs_and_metrics(
    loop: LoopThread,
    settings: Callable[..., Settings],
    collector: Collector,
    caplog: pytest.LogCaptureFixture,
):
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    metadata = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"), ("x-request-id", "order-17"))
    with (
        caplog.at_level(logging.INFO),
        running_server(loop, settings(trace_endpoint=collector.endpoint)) as running,
    ):
        answer = running.translation.Translate(REQUEST, metadata=metadata)
        wait_until(lambda: any("order-17" in line for line in caplog.messages))
        text = metrics_page(running.server, accept="application/openmetrics-text; version=1.0.0")
    spans = {span.name: span for span in collector.spans}
    call = spans["attendant.v1.TranslationService/Translate"]
    assert {span.trace_id.hex() for span in collector.spans} == {trace_id}
    assert call.parent_span_id.hex() == "b7ad6b7169203331"
    phases = ["receive", "tokenize", "queue", "encode", "decode", "answer"]
    assert sorted(spans) == sorted([*phases, call.name])
    assert all(spans[phase].parent_span_id == call.span_id for phase in phases)
    counts = answer.token_counts
    assert attributes(spans["tokenize"])["attendant.tokens"] == counts.num_input_tokens
    assert attributes(spans["encode"])["attendant.batch_texts"] == 1
    assert attributes(spans["decode"]) == {
        "attendant.batch_texts": 1,
        "attendant.tokens": counts.num_output_tokens,
    }
    [line] = [line for line in caplog.messages if "request_id=order-17" in line]
    assert f"request_id=order-17 trace_id={trace_id} texts=1" in line
    exemplars = {
        sample.exemplar.labels["trace_id"]
        for family in open_metrics_families(text)
        for sample in family.samples
        if sample.exemplar
    }
    assert exemplars == {trace_id}


def test_tracing_that_is_not_installed_is_named_at_the_start(
    loop: LoopThread, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, "attendant_server.observability.tracing", None)
    server = Server(settings(trace_endpoint="http://127.0.0.1:1"))
    with pytest.raises(StartError, match=r"tracing needs attendant-server\[tracing\]"):
        loop.run(server.start())


def say_the_marker(running: Running) -> None:
    """Send the marker as text in valid and invalid calls of every method with texts."""
    long_text = f"{MARKER} " * 1000
    texts = [MARKER, long_text, ""]
    pairs = [TranslationPair(source=text, target=text) for text in texts]
    running.translation.Translate(TranslateRequest(texts=texts))
    list(running.translation.StreamTranslate(StreamTranslateRequest(text=MARKER)))
    running.translation.Score(ScoreRequest(pairs=pairs))
    running.embedding.Embed(EmbedRequest(texts=[*texts, f"{MARKER} dog", "x" * 30_000 + MARKER]))
    running.embedding.EmbedTokens(EmbedTokensRequest(texts=texts))
    running.embedding.FillMask(FillMaskRequest(texts=[f"{MARKER} [MASK]", *texts]))
    running.models.Tokenize(TokenizeRequest(texts=texts, model="tiny-bert"))
    too_wide = TranslateOptions(beam_size=1000)
    unknown: Any = 99
    for call, request in (
        (running.translation.Translate, TranslateRequest(texts=texts, options=too_wide)),
        (running.translation.Translate, TranslateRequest(texts=texts, model=MARKER)),
        (running.embedding.Embed, EmbedRequest(texts=texts, truncation=unknown)),
        (running.models.GetModel, GetModelRequest(model=MARKER)),
    ):
        failure_of(call, request)
    raw = running.channel.unary_unary("/attendant.v1.TranslationService/Translate")
    failure_of(raw, b"\xff" + MARKER.encode())
    failure_of(running.channel.unary_unary(f"/attendant.v1.TranslationService/{MARKER}"), b"")


def fail_with_the_marker(*_: Any) -> None:
    raise RuntimeError(f"cannot read {MARKER}")


def test_no_metric_no_line_and_no_span_ever_holds_a_text(
    loop: LoopThread,
    settings: Callable[..., Settings],
    collector: Collector,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    with (
        caplog.at_level(logging.DEBUG),
        running_server(loop, settings(trace_endpoint=collector.endpoint)) as running,
    ):
        say_the_marker(running)
        monkeypatch.setattr(
            "attendant_server.application.pieced_text.encode_all", fail_with_the_marker
        )  # an unexpected error
        failure_of(running.translation.Translate, REQUEST)
        wait_until(lambda: running.metric("grpc_server_handled_total") == 13)
        metrics = metrics_page(running.server)
    ours = [r for r in caplog.records if r.name.startswith(("attendant_server", "grpc"))]
    lines = "\n".join(form.format(r) for r in ours for form in (JsonFormatter(), CONSOLE))
    assert lines.count("event=call_failed") == 1
    assert lines.count("event=call ") >= 13
    assert len(collector.spans) > 50
    for what in (lines, metrics, collector.content.decode("latin-1")):
        assert MARKER not in what
        assert "Xylo" not in what
