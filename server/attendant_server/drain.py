"""The calls that a stopping server must wait for: calls with work in progress, of all front doors.

A stop does not wait for calls that wait for their callers: a stream without a further request, such
as idle reflection, a request that does not arrive, or an answer that the caller does not read. It
waits for the texts that a bulk call has read, even though the call waits for further ones.
"""

import asyncio
import time
from typing import Protocol

from attendant_server.records import CallRecord

STALLED_SECONDS = 5.0
"""A stop does not wait for a response that the caller has not taken for this long."""
POLL_SECONDS = 0.02


class TrackedCall(Protocol):
    """A call, which tells when it waits for its caller."""

    record: CallRecord
    is_receiving: bool
    """Whether the call waits for the next request."""
    sending_since: float | None
    """When the call began to wait for the caller to take a response; None if it does not."""


class CallTracker:
    """The calls in progress."""

    def __init__(self, stalled_seconds: float = STALLED_SECONDS) -> None:
        self._stalled_seconds = stalled_seconds
        self._calls: set[TrackedCall] = set()

    def begin(self, call: TrackedCall) -> None:
        """A call has begun."""
        self._calls.add(call)

    def end(self, call: TrackedCall) -> None:
        """The answer of a call has been sent, or its caller has gone."""
        self._calls.discard(call)

    async def wait(self, timeout_seconds: float) -> int:
        """Wait at most ``timeout_seconds`` for the calls in progress; returns the number left.

        Does not wait for calls that wait for their callers, nor for calls that begin meanwhile.
        """
        give_up = time.monotonic() + timeout_seconds
        calls = self._calls.copy()
        # Polls, because no event says that a caller has stopped reading.
        while num_left := sum(map(self._works_for, calls & self._calls)):
            if time.monotonic() >= give_up:
                break
            await asyncio.sleep(POLL_SECONDS)
        return num_left

    def _works_for(self, call: TrackedCall) -> bool:
        if call.sending_since is not None:
            return time.monotonic() - call.sending_since <= self._stalled_seconds
        return not call.is_receiving or call.record.num_unanswered_texts > 0
