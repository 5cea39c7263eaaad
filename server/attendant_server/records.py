"""The record of a call.

The front door makes the record, the application fills it in, and observers read it when the call
has ended. It holds counts, names, times, the caller's name and address, and never any text of the
caller.
"""

import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from attendant_server.callers import ANONYMOUS, Identity
from attendant_server.engine import calls
from attendant_server.engine.calls import CallTimings
from attendant_server.foreign_methods import OPERATIONS, PROBES

OWN_PACKAGE = "attendant."
BETWEEN_MODELS = "+"
"""Stands between the keys of the models of a call that has two; names have no such sign."""
BULK_WEIGHT = 0.25
"""The share of a caller of bulk calls among heavy callers, relative to a caller of interactive
ones."""
_NO_TIMINGS = CallTimings()


def _ignore(part: "CallRecord") -> None:
    pass


class Method(NamedTuple):
    """The gRPC method of a call."""

    service: str
    name: str
    type: str
    """``unary``, ``server_stream``, ``client_stream`` or ``bidi_stream``."""

    @classmethod
    def of(
        cls, service: str, name: str, request_streaming: bool, response_streaming: bool
    ) -> "Method":
        """The method with its type."""
        type_ = {
            (False, False): "unary",
            (False, True): "server_stream",
            (True, False): "client_stream",
            (True, True): "bidi_stream",
        }[request_streaming, response_streaming]
        return cls(service, name, type_)

    @property
    def is_own(self) -> bool:
        """Whether the method belongs to the package attendant."""
        return self.service.startswith(OWN_PACKAGE)

    @property
    def serves_models(self) -> bool:
        """Whether limits apply to the method; not to health checks of any kind and reflection."""
        return self.is_own or (self.service in OPERATIONS and self.name not in PROBES)

    @property
    def operation(self) -> str:
        """The name of the method of attendant.v1 that does the same work.

        Empty if there is none, or if it depends on the request.
        """
        if self.is_own:
            return self.name
        return OPERATIONS[self.service][self.name] if self.service in OPERATIONS else ""


class Phase(NamedTuple):
    """A part of a call, in seconds on the engine's clock."""

    name: str
    start: float
    end: float


@dataclass(slots=True)
class CallRecord:
    """The record of one call. Times are in seconds on the engine's clock, None before the event."""

    method: Method
    request_id: str = ""
    """The caller's id, or an id made by the server."""
    peer: str = ""
    """The address of the caller or of its proxy, ``host:port``."""
    caller: Identity = ANONYMOUS
    """The identity of the authenticated caller."""
    is_bulk: bool = False
    """Whether the caller asked for the class bulk."""
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    code: str = "OK"
    """Name of the status; valid once the call has ended."""
    reason: str = ""
    """The reason of a refusal or failure, such as a field and its limit: the message of an
    `AttendantError`, which repeats language tags of the request at most."""
    model: str = ""
    """``<name>/<version>``, or two with `BETWEEN_MODELS`; empty before the model is found."""
    num_texts: int = 0
    num_truncated_texts: int = 0
    num_invalid_texts: int = 0
    """Number of texts with a fault."""
    num_counted_texts: int = 0
    """Texts that count for the caller's quota."""
    num_counted_tokens: int = 0
    exceeded_quota: str = ""
    """The field of `Quota` that refused the call."""
    num_input_tokens: int = 0
    num_output_tokens: int = 0
    longest_output: int = 0
    """Largest number of tokens in one hypothesis."""
    tokenization_started: float | None = None
    """When tokenization began."""
    tokenization_ended: float | None = None
    engine: CallTimings = field(default_factory=lambda: _NO_TIMINGS)
    """The engine's times; all None for calls that did not reach the engine."""
    traced_by: dict[str, str] = field(default_factory=dict)
    """The caller's trace context, from the call's metadata."""
    num_unanswered_texts: int = 0
    """Texts of a stream that were read and whose answers were not sent yet."""
    has_part_records: bool = False
    """Whether the texts of the call were reported in parts."""
    on_part_ended: Callable[["CallRecord"], None] = _ignore
    """Receives the record of each part of a stream."""
    trace_id: str = ""
    """32 hexadecimal digits if the call is traced; set once the call has ended."""
    operation: str = field(init=False)
    """The name of the method of attendant.v1 that does the work of the call; empty if none does."""
    _phases: tuple[Phase, ...] = ()

    def __post_init__(self) -> None:
        self.operation = self.method.operation

    @property
    def engine_caller(self) -> calls.Caller:
        """The caller for the engine, with its bulk calls apart.

        A caller without a name is its connection.
        """
        name = self.peer if self.caller is ANONYMOUS else self.caller.name
        is_bulk = self.is_bulk or self.caller.is_bulk
        weight = self.caller.weight * (BULK_WEIGHT if is_bulk else 1)
        return calls.Caller(name, is_bulk, weight)

    def of_part(self) -> "CallRecord":
        """A new record, for texts of this call, which is a stream, that are answered together."""
        return CallRecord(self.method, self.request_id, self.peer, self.caller, self.is_bulk)

    def add(self, part: "CallRecord") -> None:
        """Count and report texts of this call, by their own record."""
        self.has_part_records = True
        if not self.model:
            self.model, self.operation = part.model, part.operation
        self.num_texts += part.num_texts
        self.num_truncated_texts += part.num_truncated_texts
        self.num_invalid_texts += part.num_invalid_texts
        self.num_counted_texts += part.num_counted_texts
        self.num_counted_tokens += part.num_counted_tokens
        self.num_input_tokens += part.num_input_tokens
        self.num_output_tokens += part.num_output_tokens
        self.longest_output = max(self.longest_output, part.longest_output)
        self.on_part_ended(part)

    def phases(self) -> tuple[Phase, ...]:
        """The phases of the call, in order.

        An open phase ends with the call; it is left out while the call runs.
        """
        if self._phases:
            return self._phases
        phases = tuple(self._phases_so_far())
        if self.ended is not None:
            self._phases = phases
        return phases

    def _phases_so_far(self) -> Iterator[Phase]:
        engine = self.engine
        encoded = engine.finished if engine.encoded is None else engine.encoded
        for name, start, end in (
            ("receive", self.started, self.tokenization_started),
            ("tokenize", self.tokenization_started, self.tokenization_ended),
            ("queue", engine.submitted, engine.started),
            ("encode", engine.started, encoded),
            ("decode", engine.encoded, engine.finished),
            ("answer", engine.finished, self.ended),
        ):
            end = self.ended if end is None else end
            if start is not None and end is not None:
                yield Phase(name, start, end)


class CallObserver(Protocol):
    """Receives every call. Implementations must be quick and must not raise."""

    def on_call_started(self, record: CallRecord) -> None:
        """A call has started. Called on the event loop."""

    def on_part_ended(self, record: CallRecord) -> None:
        """Texts of a stream have been answered; the record is theirs.

        The counts in the record of the call include it. Never called concurrently.
        """

    def on_call_ended(self, record: CallRecord) -> None:
        """A call has ended; the record is complete. Never called concurrently."""


_current: ContextVar[CallRecord] = ContextVar("call")
_NO_METHOD = Method("", "", "")


def begin(record: CallRecord) -> None:
    """Make this the record of the running task's call."""
    _current.set(record)


def current() -> CallRecord:
    """The record of the running task's call; an unused record outside of calls.

    Jobs on other threads have no record: read it before starting them.
    """
    return _current.get(None) or CallRecord(_NO_METHOD)
