"""Spans, into memory and to a real end of OTLP."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from attendant_server.engine.calls import CallTimings
from attendant_server.observability import tracing
from attendant_server.observability.tracing import Exporter, Tracer, new_tracer
from attendant_server.records import CallRecord, Method
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

TRANSLATE = Method.of("attendant.v1.TranslationService", "Translate", False, False)
HEALTH = Method.of("grpc.health.v1.Health", "Check", False, False)
NAME = "attendant.v1.TranslationService/Translate"
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "vendor=1"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}


def call_record(**changes: Any) -> CallRecord:
    values: dict[str, Any] = {
        "started": 1.0,
        "read_started": 1.5,
        "read_ended": 2.0,
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
    tracer.on_call_started(record, metadata or {})
    tracer.on_call_ended(record)


def test_a_call_is_a_span_with_one_for_each_phase(tracer: Tracer, memory: InMemorySpanExporter):
    record = call_record()
    trace(tracer, record)
    *phases, call = memory.get_finished_spans()
    assert [span.name for span in phases] == [
        "receive",
        "tokenize",
        "queue",
        "encode",
        "decode",
        "answer",
    ]
    assert (call.name, call.kind, call.parent) == (NAME, SpanKind.SERVER, None)
    assert record.trace_id == f"{call.context.trace_id:032x}"
    for span in phases:
        assert span.parent == call.context
        assert span.context.trace_id == call.context.trace_id
    assert len({span.context.span_id for span in (call, *phases)}) == 7
    assert call.resource.attributes["service.name"] == "attendant"


def test_spans_last_as_long_as_what_they_stand_for(tracer: Tracer, memory: InMemorySpanExporter):
    trace(tracer, call_record())
    seconds = {}
    for span in memory.get_finished_spans():
        assert span.start_time is not None
        assert span.end_time is not None
        seconds[span.name] = (span.end_time - span.start_time) / 1e9
    expected = {"receive": 0.5, "tokenize": 0.5, "queue": 1, "encode": 1, "decode": 4, "answer": 1}
    assert seconds == pytest.approx(expected | {NAME: 8.0}, abs=0.05)


def test_spans_tell_batches_and_tokens(tracer: Tracer, memory: InMemorySpanExporter):
    trace(tracer, call_record())
    spans = {span.name: dict(span.attributes or {}) for span in memory.get_finished_spans()}
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
    *_, queue, call = memory.get_finished_spans()
    assert queue.name == "queue"
    assert queue.end_time == pytest.approx(call.end_time, abs=50_000_000)
    assert call.status.status_code == StatusCode.UNSET


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("OK", StatusCode.UNSET),
        ("INVALID_ARGUMENT", StatusCode.UNSET),
        ("RESOURCE_EXHAUSTED", StatusCode.UNSET),
        ("INTERNAL", StatusCode.ERROR),
        ("UNAVAILABLE", StatusCode.ERROR),
    ],
)
def test_only_faults_of_the_server_are_errors(
    tracer: Tracer, memory: InMemorySpanExporter, code: str, status: StatusCode
):
    trace(tracer, call_record(code=code))
    assert memory.get_finished_spans()[-1].status.status_code == status


def test_a_trace_of_the_caller_is_continued(tracer: Tracer, memory: InMemorySpanExporter):
    record = call_record()
    trace(tracer, record, SAMPLED)
    call = memory.get_finished_spans()[-1]
    assert record.trace_id == TRACE_ID
    assert call.parent is not None
    assert f"{call.parent.span_id:016x}" == PARENT_ID
    assert call.parent.is_remote
    assert call.context.trace_state.get("vendor") == "1"


def test_what_the_caller_does_not_trace_is_not_traced(tracer: Tracer, memory: InMemorySpanExporter):
    record = call_record()
    trace(tracer, record, NOT_SAMPLED)
    assert not memory.get_finished_spans()
    assert not record.trace_id


def test_a_parent_that_cannot_be_read_begins_a_trace(tracer: Tracer, memory: InMemorySpanExporter):
    trace(tracer, call_record(), {"traceparent": "nonsense"})
    assert memory.get_finished_spans()[-1].parent is None


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
    spans = memory.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE_ID}
    attributes = spans[0].resource.attributes
    assert attributes["service.name"] == "translations"
    assert attributes["service.version"] == "0.1.0"
    assert attributes["deployment.environment.name"] == "staging"


def test_spans_are_encoded_as_opentelemetry_encodes_them(
    tracer: Tracer, memory: InMemorySpanExporter
):
    trace(tracer, call_record(code="INTERNAL"), SAMPLED)
    trace(tracer, call_record())
    spans = memory.get_finished_spans()
    exporter = Exporter(endpoint="http://localhost:1")
    ours, theirs = exporter._translate_data(spans), encode_spans(spans)
    exporter.shutdown()
    for request in (ours, theirs):
        for span in request.resource_spans[0].scope_spans[0].spans:
            span.flags |= 1  # they leave out that the span was sampled
            span.status.SetInParent()
    assert ours == theirs


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A real end of OTLP that keeps what it gets."""

    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []

    def Export(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_spans_reach_a_collector_by_the_time_that_the_tracer_is_closed(
    collector: tuple[Collector, str],
):
    end, endpoint = collector
    tracer = new_tracer(endpoint, "0.1.0")
    for _ in range(100):
        trace(tracer, call_record(), SAMPLED)
    tracer.close()
    scopes = [s for request in end.requests for r in request.resource_spans for s in r.scope_spans]
    spans = [span for scope in scopes for span in scope.spans]
    assert len(spans) == 700
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert {scope.scope.name for scope in scopes} == {"attendant_server"}


def test_a_collector_that_is_not_there_holds_nothing_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tracing, "FLUSH_SECONDS", 0.1)
    tracer = new_tracer("http://127.0.0.1:1", "0.1.0")
    for _ in range(1000):
        trace(tracer, call_record())
    tracer.close()
