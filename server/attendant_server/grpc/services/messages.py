"""Message parts that several services read or write."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

from attendant.v1 import text_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from attendant_server.application.tokenization_options import (
    TruncationReport,
)
from attendant_server.errors import AttendantError
from attendant_server.failures import code_of
from attendant_server.records import Phase
from attendant_server.tokenized_text import Token

_TIMED_PHASES = frozenset(text_pb2.Timings.DESCRIPTOR.fields_by_name)


def given(message: Message, field: str) -> Any:
    """The value of an optional field; None when it is absent."""
    return getattr(message, field) if message.HasField(field) else None


def timings(phases: Iterable[Phase]) -> text_pb2.Timings:
    """The durations of a call's phases."""
    message = text_pb2.Timings()
    for name, start, end in phases:
        if name in _TIMED_PHASES:
            duration = getattr(message, name)
            # Two workers may see the events of one call in different orders.
            duration.seconds, duration.nanos = divmod(max(0, round((end - start) * 1e9)), 10**9)
    return message


def fault(error: AttendantError) -> status_pb2.Status:
    """The fault of one text, as a status."""
    return status_pb2.Status(code=code_pb2.Code.Value(code_of(error)), message=str(error))


def truncation(report: TruncationReport | None) -> text_pb2.TruncationReport | None:
    """The truncation of a text; None if the text was not truncated."""
    if report is None:
        return None
    return text_pb2.TruncationReport(
        num_original_tokens=report.num_original_tokens,
        num_kept_tokens=report.num_kept_tokens,
        truncation=cast("text_pb2.Truncation.ValueType", report.truncation.value),
    )


def tokens(text: Iterable[Token]) -> Sequence[text_pb2.Token]:
    """The tokens of a text that the caller sent."""
    return [
        text_pb2.Token(
            id=token.id, text=token.text, start=token.start, end=token.end, special=token.is_special
        )
        for token in text
    ]
