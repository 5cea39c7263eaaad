"""Spans of calls, made when a call has ended from what its record says, and sent over OTLP.

The only user of OpenTelemetry, which is an extra of the package: imported only where tracing is on.
Spans hold names, counts and times, and never any text. The variables ``OTEL_*`` that OpenTelemetry
defines say how spans are sampled, described and sent; only where to is a setting of ours.

docs/decisions/0009 says why spans are made and encoded here and not by OpenTelemetry's own tracer.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from attendant_server.records import CallRecord

FLUSH_SECONDS = 5.0
"""How long the last spans may take when the server stops."""
SERVER_FAULTS = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
"""Status codes that make a span an error, by OpenTelemetry's conventions."""

_FAILED, _UNSET = Status(StatusCode.ERROR), Status(StatusCode.UNSET)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NO_CONTEXT = Context()


class _Root(NamedTuple):
    """The span of a call in progress."""

    context: SpanContext
    parent: SpanContext | None


class Tracer:
    """Makes the spans of every call that is sampled: the call, and below it each of its phases."""

    def __init__(self, processor: SpanProcessor, version: str) -> None:
        """``version`` is that of the server; ``processor`` is given the spans."""
        self._processor = processor
        own = Resource.create({"service.name": "attendant", "service.version": version})
        self._resource = own.merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        self._sampler, self._new_id = provider.sampler, provider.id_generator.generate_span_id
        self._new_trace_id = provider.id_generator.generate_trace_id
        self._scope = InstrumentationScope("attendant_server", version)
        self._propagator = TraceContextTextMapPropagator()

    def on_call_started(self, record: CallRecord, metadata: Mapping[str, Any]) -> None:
        """Decide whether the call is traced, and as a part of which trace."""
        if not record.method.is_own:
            return
        above = self._propagator.extract(metadata) if "traceparent" in metadata else _NO_CONTEXT
        parent = get_current_span(above).get_span_context()
        trace_id = parent.trace_id if parent.is_valid else self._new_trace_id()
        sampling = self._sampler.should_sample(above, trace_id, _name(record), SpanKind.SERVER)
        if sampling.decision is Decision.RECORD_AND_SAMPLE:
            context = SpanContext(trace_id, self._new_id(), False, _SAMPLED, sampling.trace_state)
            record.trace_id = f"{trace_id:032x}"
            record.span = _Root(context, parent if parent.is_valid else None)

    def on_call_ended(self, record: CallRecord) -> None:
        """Make the spans of the call."""
        if record.span is not None:
            for span in self._spans(record, record.span):
                self._processor.on_end(span)

    def close(self) -> None:
        """Send what is left, but not for longer than `FLUSH_SECONDS`."""
        closing = threading.Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        closing.join(FLUSH_SECONDS)

    def _spans(self, record: CallRecord, root: _Root) -> Iterator[ReadableSpan]:
        resource, scope, new_id = self._resource, self._scope, self._new_id
        trace_id, trace_state = root.context.trace_id, root.context.trace_state
        epoch = time.time() - time.monotonic()  # between the engine's clock and the time of day
        for name, start, end in record.phases():
            yield ReadableSpan(
                name,
                SpanContext(trace_id, new_id(), False, _SAMPLED, trace_state),
                root.context,
                resource,
                _facts_of_phase(name, record),
                start_time=int((epoch + start) * 1e9),
                end_time=int((epoch + end) * 1e9),
                instrumentation_scope=scope,
            )
        ended = record.started if record.ended is None else record.ended
        yield ReadableSpan(
            _name(record),
            root.context,
            root.parent,
            resource,
            _facts_of_call(record),
            kind=SpanKind.SERVER,
            status=_FAILED if record.code in SERVER_FAULTS else _UNSET,
            start_time=int((epoch + record.started) * 1e9),
            end_time=int((epoch + ended) * 1e9),
            instrumentation_scope=scope,
        )


class Exporter(OTLPSpanExporter):
    """Sends spans as OpenTelemetry's exporter does, but encodes them in a fraction of its time."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        # What all our spans share is left to OpenTelemetry, which is not slow with one span.
        request = encode_spans(data[:1])
        spans = request.resource_spans[0].scope_spans[0].spans
        del spans[:]
        for span in data:
            _encode(span, spans.add())
        return request


def new_tracer(endpoint: str, version: str) -> Tracer:
    """A tracer that sends its spans in batches to ``endpoint``, such as ``http://host:4317``."""
    return Tracer(BatchSpanProcessor(Exporter(endpoint=endpoint)), version)


def _name(record: CallRecord) -> str:
    return f"{record.method.service}/{record.method.name}"


def _facts_of_call(record: CallRecord) -> dict[str, str | int]:
    return {
        "rpc.system.name": "grpc",
        "rpc.method": _name(record),
        "rpc.response.status_code": record.code,
        "attendant.request_id": record.request_id,
        "attendant.model": record.model,
        "attendant.texts": record.num_texts,
        "attendant.input_tokens": record.num_input_tokens,
        "attendant.output_tokens": record.num_output_tokens,
    }


def _facts_of_phase(name: str, record: CallRecord) -> dict[str, str | int]:
    if name == "tokenize":
        return {"attendant.texts": record.num_texts, "attendant.tokens": record.num_input_tokens}
    if name == "encode":
        num_texts = record.engine.num_batch_texts
        return {"attendant.batch_texts": num_texts, "attendant.tokens": record.num_input_tokens}
    if name == "decode":
        num_texts = record.engine.num_step_texts
        return {"attendant.batch_texts": num_texts, "attendant.tokens": record.num_output_tokens}
    return {}


def _encode(span: ReadableSpan, message: trace_pb2.Span) -> None:
    """Write one of our spans: no events, no links, attributes that are texts or whole numbers."""
    context, parent = span.get_span_context(), span.parent
    assert context is not None
    message.trace_id = context.trace_id.to_bytes(16)
    message.span_id = context.span_id.to_bytes(8)
    message.name = span.name
    message.kind = _KINDS[span.kind]
    message.start_time_unix_nano = span.start_time or 0
    message.end_time_unix_nano = span.end_time or 0
    message.flags = int(context.trace_flags) | _HAS_IS_REMOTE
    if context.trace_state:
        message.trace_state = context.trace_state.to_header()
    if parent is not None:
        message.parent_span_id = parent.span_id.to_bytes(8)
        if parent.is_remote:
            message.flags |= _IS_REMOTE
    if span.status.status_code is StatusCode.ERROR:
        message.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    attributes = message.attributes
    for name, value in (span.attributes or {}).items():
        attribute = attributes.add()
        attribute.key = name
        if isinstance(value, str):
            attribute.value.string_value = value
        elif isinstance(value, int):
            attribute.value.int_value = value


_KINDS = {
    SpanKind.INTERNAL: trace_pb2.Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: trace_pb2.Span.SPAN_KIND_SERVER,
}
_HAS_IS_REMOTE = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_IS_REMOTE = trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
