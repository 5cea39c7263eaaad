"""A real OTLP collector for the spans of tests."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the requests that it receives."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []

    @property
    def content(self) -> bytes:
        """All received requests as raw bytes."""
        return b"".join(request.SerializeToString() for request in self.requests)

    @property
    def scopes(self) -> list[Any]:
        """The spans of each request, grouped by instrumentation scope."""
        return [
            s for request in self.requests for r in request.resource_spans for s in r.scope_spans
        ]

    @property
    def spans(self) -> list[Any]:
        """All received spans."""
        return [span for scope in self.scopes for span in scope.spans]

    def Export(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector that listens on its ``endpoint`` while the block runs."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield collector
    server.stop(None).wait()
