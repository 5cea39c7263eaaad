"""Spans, collected in memory and sent to a real OTLP collector."""

from collections.abc import Iterator
from typing import Any

import pytest
from attendant_server.engine.calls import CallTimings
from attendant_server.observability import tracing
from attendant_server.observability.tracing import CallSpan, Exporter, Tracer, new_tracer
from attendant_server.records import CallRecord, Method
from opentelemetry import trace as trace_api
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from tests.support.collector import Collector, running_collector

TRANSLATE = Method.of("attendant.v1.TranslationService", "Translate", False, False)
HEALTH = Method.of("grpc.health.v1.Health", "Check", False, False)
NAME = "attendant.v1.TranslationService/Translate"
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "vendor=1"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}


def call_record(**changes: Any) -> CallRecord:
    values: dict[str, Any] = {
        "started": 1.0,
        "tokenization_started": 1.5,
        "tokenization_ended": 2.0,
        "ended": 9.0,
        "model": "en-de/1",
        "num_texts": 2,
        "num_input_tokens": 11,
        "num_output_tokens": 12,
        "engine": CallTimings(
            submitted=2.0,
            started=3.0,
            encoded=4.0,
            first_token=5.0,
            finished=8.0,
            num_batch_texts=6,
            num_step_texts=7,
        ),
    }
    return CallRecord(**({"method": TRANSLATE, "request_id": "order-17"} | values | changes))


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(memory: InMemorySpanExporter) -> Iterator[Tracer]:
    tracer = Tracer(SimpleSpanProcessor(memory), "0.1.0")
    yield tracer
    tracer.close()


def trace(tracer: Tracer, record: CallRecord, metadata: dict[str, str] | None = None) -> None:
    record.traced_by = metadata or {}
    tracer.on_call_started(record)
    tracer.on_call_ended(record)


def spans_in(memory: InMemorySpanExporter) -> list[trace_pb2.Span]:
    """The spans to send for the calls of a processor; the span of a call precedes its phases."""
    spans = trace_pb2.ScopeSpans().spans
    for call in memory.get_finished_spans():
        assert isinstance(call, CallSpan)
        call.write(spans, epoch=1_000_000.0)
    return list(spans)


def attributes(span: trace_pb2.Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in span.attributes}


def test_a_call_is_a_span_with_one_for_each_phase(tracer: Tracer, memory: InMemorySpanExporter):
    record = call_record()
    trace(tracer, record)
    call, *phases = spans_in(memory)
    names = ["receive", "tokenize", "queue", "encode", "decode", "answer"]
    assert [span.name for span in phases] == names
    assert (call.name, call.kind, call.parent_span_id) == (NAME, Span.SPAN_KIND_SERVER, b"")
    assert record.trace_id == call.trace_id.hex()
    for span in phases:
        assert span.kind == Span.SPAN_KIND_INTERNAL
        assert span.parent_span_id == call.span_id
        assert span.trace_id == call.trace_id
    assert len({span.span_id for span in (call, *phases)}) == 7


def test_spans_last_as_long_as_what_they_stand_for(tracer: Tracer, memory: InMemorySpanExporter):
    trace(tracer, call_record())
    times = {
        s.name: (s.start_time_unix_nano / 1e9 - 1e6, s.end_time_unix_nano / 1e9 - 1e6)
        for s in spans_in(memory)
    }
    assert times == {
        NAME: (1.0, 9.0),
        "receive": (1.0, 1.5),
        "tokenize": (1.5, 2.0),
        "queue": (2.0, 3.0),
        "encode": (3.0, 4.0),
        "decode": (4.0, 8.0),
        "answer": (8.0, 9.0),
    }


def test_spans_tell_batches_and_tokens(tracer: Tracer, memory: InMemorySpanExporter):
    trace(tracer, call_record())
    spans = {span.name: attributes(span) for span in spans_in(memory)}
    assert spans["tokenize"] == {"attendant.texts": 2, "attendant.tokens": 11}
    assert spans["encode"] == {"attendant.batch_texts": 6, "attendant.tokens": 11}
    assert spans["decode"] == {"attendant.batch_texts": 7, "attendant.tokens": 12}
    assert spans[NAME] == {
        "rpc.system.name": "grpc",
        "rpc.method": NAME,
        "rpc.response.status_code": "OK",
        "attendant.request_id": "order-17",
        "attendant.model": "en-de/1",
        "attendant.texts": 2,
        "attendant.input_tokens": 11,
        "attendant.output_tokens": 12,
    }


def test_a_call_cancelled_in_the_queue_ends_there(tracer: Tracer, memory: InMemorySpanExporter):
    trace(tracer, call_record(engine=CallTimings(submitted=2.0), code="CANCELLED"))
    call, *_, queue = spans_in(memory)
    assert queue.name == "queue"
    assert queue.end_time_unix_nano == call.end_time_unix_nano
    assert not call.HasField("status")


@pytest.mark.parametrize("code", ["OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"])
def test_what_a_caller_can_help_is_no_error(
    tracer: Tracer, memory: InMemorySpanExporter, code: str
):
    trace(tracer, call_record(code=code))
    assert spans_in(memory)[0].status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize("code", ["INTERNAL", "UNAVAILABLE"])
def test_a_fault_of_the_server_is_an_error(tracer: Tracer, memory: InMemorySpanExporter, code: str):
    trace(tracer, call_record(code=code))
    assert spans_in(memory)[0].status.code == Status.STATUS_CODE_ERROR


def test_a_trace_of_the_caller_is_continued(tracer: Tracer, memory: InMemorySpanExporter):
    record = call_record()
    trace(tracer, record, SAMPLED)
    call, *phases = spans_in(memory)
    assert record.trace_id == TRACE_ID == call.trace_id.hex()
    assert call.parent_span_id.hex() == PARENT_ID
    assert call.flags & trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert not any(s.flags & trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK for s in phases)
    assert {span.trace_state for span in (call, *phases)} == {"vendor=1"}


def test_what_the_caller_does_not_trace_is_not_traced(tracer: Tracer, memory: InMemorySpanExporter):
    record = call_record()
    trace(tracer, record, NOT_SAMPLED)
    assert not memory.get_finished_spans()
    assert not record.trace_id


def test_a_parent_that_cannot_be_read_begins_a_trace(tracer: Tracer, memory: InMemorySpanExporter):
    trace(tracer, call_record(), {"traceparent": "nonsense"})
    assert not spans_in(memory)[0].parent_span_id


def test_health_checks_are_not_traced(tracer: Tracer, memory: InMemorySpanExporter):
    trace(tracer, call_record(method=HEALTH), SAMPLED)
    assert not memory.get_finished_spans()


def test_the_standard_variables_say_what_is_sampled_and_who_this_is(
    memory: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "translations")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    tracer = Tracer(SimpleSpanProcessor(memory), "0.1.0")
    trace(tracer, call_record())
    trace(tracer, call_record(), SAMPLED)
    assert {span.trace_id.hex() for span in spans_in(memory)} == {TRACE_ID}
    described = memory.get_finished_spans()[0].resource.attributes
    assert described["service.name"] == "translations"
    assert described["service.version"] == "0.1.0"
    assert described["deployment.environment.name"] == "staging"


def test_spans_are_written_as_opentelemetry_writes_them(
    tracer: Tracer, memory: InMemorySpanExporter
):
    trace(tracer, call_record(code="INTERNAL"), SAMPLED)
    exporter = Exporter(endpoint="http://localhost:1")
    calls = memory.get_finished_spans()
    [ours], [theirs] = (
        exporter._translate_data(calls).resource_spans,
        encode_spans(
            [as_opentelemetry_makes_it(span, calls[0]) for span in spans_in(memory)]
        ).resource_spans,
    )
    again = exporter._translate_data(calls).resource_spans[0]
    exporter.shutdown()
    assert (ours.resource, ours.schema_url) == (theirs.resource, theirs.schema_url)
    assert ours.scope_spans[0].scope == theirs.scope_spans[0].scope
    ids = [[s.span_id for s in message.scope_spans[0].spans] for message in (ours, again)]
    assert ids[0] == ids[1]  # so that a repeated export creates no duplicates
    for mine, other in zip(spans_in(memory), theirs.scope_spans[0].spans, strict=True):
        other.flags |= 1  # their spans omit the sampled flag
        if other.status == Status():
            other.ClearField("status")
        assert mine == other


def as_opentelemetry_makes_it(span: trace_pb2.Span, call: ReadableSpan) -> ReadableSpan:
    context = call.get_span_context()
    assert context is not None
    own = SpanContext(
        context.trace_id,
        int.from_bytes(span.span_id),
        is_remote=False,
        trace_flags=context.trace_flags,
        trace_state=context.trace_state,
    )
    is_call = span.kind == Span.SPAN_KIND_SERVER
    return ReadableSpan(
        span.name,
        own,
        call.parent if is_call else context,
        call.resource,
        attributes(span),
        kind=SpanKind.SERVER if is_call else SpanKind.INTERNAL,
        status=trace_api.Status(StatusCode.ERROR if is_call else StatusCode.UNSET),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        instrumentation_scope=call.instrumentation_scope,
    )


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


def test_spans_reach_a_collector_by_the_time_that_the_tracer_is_closed(
    collector: Collector,
):
    tracer = new_tracer(collector.endpoint, "0.1.0")
    for _ in range(100):
        trace(tracer, call_record(), SAMPLED)
    tracer.close()
    assert len(collector.spans) == 700
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}
    assert {scope.scope.name for scope in collector.scopes} == {"attendant_server"}


def test_a_collector_that_is_not_there_holds_nothing_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.1)
    tracer = new_tracer("http://127.0.0.1:1", "0.1.0")
    for _ in range(1000):
        trace(tracer, call_record())
    tracer.close()
