"""Spans of calls, made from a call's record when it has ended, and sent over OTLP.

The only user of OpenTelemetry, which is an extra of the package and imported only if tracing is on.
Spans hold names, counts and times, and never any text. OpenTelemetry's variables ``OTEL_*`` control
how spans are sampled, described and sent. Only the endpoint is a setting of the server.

docs/decisions/0009 says why spans are written here and not by OpenTelemetry's own tracer.
"""

import threading
import time
from collections.abc import Sequence
from typing import Any

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
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from attendant_server.records import CallRecord

FLUSH_SECONDS = 5.0
"""Time limit in seconds for sending the last spans when the server stops."""
SERVER_FAULTS = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
"""Status codes that make a span an error, by OpenTelemetry's conventions."""

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NO_CONTEXT = Context()
_FLAGS = TraceFlags.SAMPLED | trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK


class CallSpan(ReadableSpan):
    """The span of a call, for a processor. The exporter adds the spans of its phases."""

    def __init__(self, record: CallRecord, context: SpanContext, parent: SpanContext, by: "Tracer"):
        """``parent`` is invalid for the first span of a trace."""
        super().__init__(
            f"{record.method.service}/{record.method.name}",
            context,
            parent if parent.is_valid else None,
            by.resource,
            kind=SpanKind.SERVER,
            instrumentation_scope=by.scope,
        )
        self.record, self.span_context = record, context

    def write(self, spans: Any, epoch: float) -> None:
        """Add the call's spans to the ``spans`` of a message.

        ``epoch`` is the Unix time in seconds at which the engine's clock was zero.
        """
        record, context = self.record, self.span_context
        assert record.ended is not None
        root_id = context.span_id.to_bytes(8)
        self._write(spans.add(), root_id, self.name, record.started, record.ended, epoch)
        root = spans[-1]
        root.kind = trace_pb2.Span.SPAN_KIND_SERVER
        if self.parent is not None:
            root.parent_span_id = self.parent.span_id.to_bytes(8)
            root.flags |= trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
        if record.code in SERVER_FAULTS:
            root.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        _describe_call(root.attributes, self.name, record)
        for number, (name, start, end) in enumerate(record.phases(), start=1):
            span = spans.add()
            # The id of a phase is the same at every attempt to send it.
            own_id = ((context.span_id + number) % 2**64).to_bytes(8)
            self._write(span, own_id, name, start, end, epoch)
            span.kind = trace_pb2.Span.SPAN_KIND_INTERNAL
            span.parent_span_id = root_id
            _describe_phase(span.attributes, name, record)

    def _write(
        self, span: Any, own_id: bytes, name: str, start: float, end: float, epoch: float
    ) -> None:
        span.trace_id, span.span_id = self.span_context.trace_id.to_bytes(16), own_id
        span.name, span.flags = name, _FLAGS
        span.start_time_unix_nano = int((epoch + start) * 1e9)
        span.end_time_unix_nano = int((epoch + end) * 1e9)
        if self.span_context.trace_state:
            span.trace_state = self.span_context.trace_state.to_header()


class Tracer:
    """Decides which calls are traced, and passes their spans to a processor."""

    def __init__(self, processor: SpanProcessor, version: str) -> None:
        """``version`` is the server's version."""
        self._processor = processor
        own = Resource.create({"service.name": "attendant", "service.version": version})
        self.resource = own.merge(OTELResourceDetector().detect())
        self.scope = InstrumentationScope("attendant_server", version)
        provider = TracerProvider(resource=self.resource, shutdown_on_exit=False)
        self._sampler, self._ids = provider.sampler, provider.id_generator
        self._propagator = TraceContextTextMapPropagator()

    def on_call_started(self, record: CallRecord) -> None:
        """A call has started."""

    def on_part_ended(self, record: CallRecord) -> None:
        """Texts of a stream have been answered."""

    def on_call_ended(self, record: CallRecord) -> None:
        """Decide whether the call is traced and in which trace; pass its spans on."""
        if not record.method.serves_models:
            return
        above = self._propagator.extract(record.traced_by) if record.traced_by else _NO_CONTEXT
        parent = get_current_span(above).get_span_context()
        trace_id = parent.trace_id if parent.is_valid else self._ids.generate_trace_id()
        sampling = self._sampler.should_sample(above, trace_id, record.method.name, SpanKind.SERVER)
        if sampling.decision is Decision.RECORD_AND_SAMPLE:
            own_id = self._ids.generate_span_id()
            context = SpanContext(trace_id, own_id, False, _SAMPLED, sampling.trace_state)
            record.trace_id = f"{trace_id:032x}"
            self._processor.on_end(CallSpan(record, context, parent, by=self))

    def close(self) -> None:
        """Send the remaining spans, for at most `FLUSH_SECONDS`."""
        closing = threading.Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        closing.join(FLUSH_SECONDS)


class Exporter(OTLPSpanExporter):
    """OpenTelemetry's exporter with a serialization that takes a fraction of the time."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        # OpenTelemetry serializes the common parts of all spans, from one span.
        request = encode_spans(data[:1])
        spans = request.resource_spans[0].scope_spans[0].spans
        del spans[:]
        epoch = time.time() - time.monotonic()
        for span in data:
            if isinstance(span, CallSpan):
                span.write(spans, epoch)
        return request


def new_tracer(endpoint: str, version: str) -> Tracer:
    """A tracer that sends its spans in batches to ``endpoint``, such as ``http://host:4317``."""
    return Tracer(BatchSpanProcessor(Exporter(endpoint=endpoint)), version)


def _describe_call(attributes: Any, name: str, record: CallRecord) -> None:
    _add_text(attributes, "rpc.system.name", "grpc")
    _add_text(attributes, "rpc.method", name)
    _add_text(attributes, "rpc.response.status_code", record.code)
    _add_text(attributes, "attendant.request_id", record.request_id)
    _add_text(attributes, "attendant.model", record.model)
    _add_number(attributes, "attendant.texts", record.num_texts)
    _add_number(attributes, "attendant.input_tokens", record.num_input_tokens)
    _add_number(attributes, "attendant.output_tokens", record.num_output_tokens)


def _describe_phase(attributes: Any, name: str, record: CallRecord) -> None:
    if name == "tokenize":
        _add_number(attributes, "attendant.texts", record.num_texts)
        _add_number(attributes, "attendant.tokens", record.num_input_tokens)
    elif name == "encode":
        _add_number(attributes, "attendant.batch_texts", record.engine.num_batch_texts)
        _add_number(attributes, "attendant.tokens", record.num_input_tokens)
    elif name == "decode":
        _add_number(attributes, "attendant.batch_texts", record.engine.num_step_texts)
        _add_number(attributes, "attendant.tokens", record.num_output_tokens)


def _add_text(attributes: Any, name: str, value: str) -> None:
    attribute = attributes.add()
    attribute.key = name
    attribute.value.string_value = value


def _add_number(attributes: Any, name: str, value: int) -> None:
    attribute = attributes.add()
    attribute.key = name
    attribute.value.int_value = value
