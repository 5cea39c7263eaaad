"""The script of a server for tests of the client: its faults, and the requests that it received."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import grpc
from attendant.v1 import text_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1.health import HealthServicer
from grpc_status import rpc_status

EMPTY = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="the text is empty")
CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure of one call before it reaches its service."""

    code: int
    message: str = "as scripted"
    retry_delay_seconds: float | None = None
    metadata: tuple[tuple[str, str | bytes], ...] = ()

    def abort(self, context: grpc.ServicerContext) -> None:
        if self.retry_delay_seconds is None:
            context.set_trailing_metadata(self.metadata)
            context.abort(CODES[self.code], self.message)
        delay = Duration()
        delay.FromNanoseconds(int(self.retry_delay_seconds * 1e9))
        detail = AnyMessage()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code, message=self.message, details=[detail])
        context.abort_with_status(rpc_status.to_status(status))


@dataclass(slots=True)
class Script:
    """The faults that the server must produce, and the requests that it received."""

    faults: list[Fault] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    time_left: list[float] = field(default_factory=list)
    peers: set[str] = field(default_factory=set)
    reached: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    change: Callable[[Any], None] | None = None
    max_texts: int | None = None
    breaks: dict[str, Fault] = field(default_factory=dict)
    """Faults of bulk calls, by the texts at which they end; each happens once."""
    health: HealthServicer = field(default_factory=HealthServicer)

    def answer(self, request: Any, response: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        self.reached.set()
        self.time_left.append(context.time_remaining())
        self.peers.add(context.peer())
        self._check_count(request, context)
        if "slow" in str(request):
            self.watch(context).wait(30)
        if self.change is not None:
            self.change(response)
        return response

    def answered_together(self, texts: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """The texts of a message of a bulk call, at most 5 together, until the call breaks.

        A slow text is answered alone.
        """

        def is_usual(each: Any) -> bool:
            return each.text not in self.breaks and "slow" not in each.text

        while texts:
            if texts[0].text in self.breaks:
                self.breaks.pop(texts[0].text).abort(context)
            yield (part := list(takewhile(is_usual, texts[:5])) or [texts[0]])
            texts = texts[len(part) :]

    def _check_count(self, request: Any, context: grpc.ServicerContext) -> None:
        names = ("queries", "texts", "pairs", "documents")
        texts: Any = next(filter(None, (getattr(request, name, ()) for name in names)), ())
        if self.max_texts is not None and len(texts) > self.max_texts:
            detail, limits = AnyMessage(), {"max_texts": str(self.max_texts)}
            detail.Pack(error_details_pb2.ErrorInfo(reason="CALL_TOO_LARGE", metadata=limits))
            code, message = code_pb2.INVALID_ARGUMENT, f"texts: at most {self.max_texts}"
            status = status_pb2.Status(code=code, message=message, details=[detail])
            context.abort_with_status(rpc_status.to_status(status))

    def watch(self, context: grpc.ServicerContext) -> threading.Event:
        """Set `ended`, and an event of this call, as soon as the call has ended for any reason."""
        ended = threading.Event()

        def end() -> None:
            ended.set()
            self.ended.set()

        if not context.add_callback(end):
            end()
        return ended


class FaultInterceptor(grpc.ServerInterceptor):
    """Applies the next fault of the script to the next call."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def intercept_service(self, continuation, details):
        self._script.calls.append(details.method.rpartition("/")[2])
        self._script.metadata.append(dict(details.invocation_metadata))
        handler = continuation(details)
        if not self._script.faults or handler is None:
            return handler
        fault = self._script.faults.pop(0)

        def fail(request: Any, context: grpc.ServicerContext) -> None:
            fault.abort(context)

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(fail, handler.request_deserializer, handler.response_serializer)


def error_of(text: str) -> status_pb2.Status | None:
    return None if text.strip() else EMPTY


def tokens_of(text: str) -> list[text_pb2.Token]:
    tokens, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        end = start + len(word)
        tokens.append(text_pb2.Token(id=len(word), text=word, start=start, end=end))
        start = end
    return [*tokens, text_pb2.Token(id=1, text="</s>", start=start, end=start, special=True)]
