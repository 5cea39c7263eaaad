"""What is known of a call to a method while it is being answered.

The front door makes the record, the application notes in it what it learns, and observers read it
when the call has ended. It holds counts, names, times and the caller's address, and never any text
of the caller.
"""

import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from attendant_server.engine.calls import CallTimings

OWN_PACKAGE = "attendant."


class Method(NamedTuple):
    """Which method a call is for."""

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
        """Whether it belongs to the package attendant, unlike health checks and reflection."""
        return self.service.startswith(OWN_PACKAGE)


class Phase(NamedTuple):
    """A part of a call, in seconds on the engine's clock."""

    name: str
    start: float
    end: float


@dataclass(slots=True)
class CallRecord:
    """One call so far. Times are in seconds on the engine's clock, None until they have come."""

    method: Method
    request_id: str = ""
    """The caller's or one of our own."""
    peer: str = ""
    """The address of the caller, ``host:port``; behind a proxy that of the proxy."""
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    code: str = "OK"
    """Name of the status, right once the call has ended."""
    reason: str = ""
    """Why the call was refused or has failed: which field broke which limit, in our own words. It
    holds numbers, and names of fields and models, and nothing else of what the caller sent."""
    model: str = ""
    """``<name>/<version>``; empty until a model was found."""
    num_texts: int = 0
    num_truncated_texts: int = 0
    num_invalid_texts: int = 0
    """Texts that have a fault of their own."""
    num_input_tokens: int = 0
    num_output_tokens: int = 0
    longest_output: int = 0
    """Most tokens of one hypothesis."""
    tokenization_started: float | None = None
    """When the texts began to be cut into tokens."""
    tokenization_ended: float | None = None
    engine: CallTimings = field(default_factory=CallTimings)
    """What the engine has noted; all None for calls that did not reach it."""
    traced_by: dict[str, str] = field(default_factory=dict)
    """The metadata by which the caller says of which trace the call is a part."""
    trace_id: str = ""
    """32 hexadecimal digits if the call is traced, known once it has ended."""
    _phases: tuple[Phase, ...] = ()

    def phases(self) -> tuple[Phase, ...]:
        """What the call went through, in order; what has no end of its own ends with the call."""
        if self.ended is None:
            return tuple(self._phases_until(self.started))
        if not self._phases:
            self._phases = tuple(self._phases_until(self.ended))
        return self._phases

    def _phases_until(self, ended: float) -> Iterator[Phase]:
        engine = self.engine
        encoded = engine.finished if engine.encoded is None else engine.encoded
        for name, start, end in (
            ("receive", self.started, self.tokenization_started),
            ("tokenize", self.tokenization_started, self.tokenization_ended),
            ("queue", engine.submitted, engine.started),
            ("encode", engine.started, encoded),
            ("decode", engine.encoded, engine.finished),
            ("answer", engine.finished, ended),
        ):
            if start is not None:
                yield Phase(name, start, ended if end is None else end)


class CallObserver(Protocol):
    """Is shown every call; must be quick and must not raise."""

    def on_call_started(self, record: CallRecord) -> None:
        """A call has come. On the event loop."""

    def on_call_ended(self, record: CallRecord) -> None:
        """A call has ended; the record is complete. Never two calls at a time."""


_current: ContextVar[CallRecord] = ContextVar("call")
_NO_METHOD = Method("", "", "")


def begin(record: CallRecord) -> None:
    """Make this the record of the call that the running task answers."""
    _current.set(record)


def current() -> CallRecord:
    """The record of the call that the running task answers; one that nobody reads outside of any.

    Jobs on other threads have none: take it before they begin.
    """
    return _current.get(None) or CallRecord(_NO_METHOD)
