"""Connection defaults of both clients: target, timeout, retries and channel options.

Opens no channel, so the synchronous and the asyncio client share it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from attendant_client.retries import Attempts, RetryPolicy, RetryThrottle

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_RETRY = RetryPolicy()

Metadata = tuple[tuple[str, str | bytes], ...]

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # Hidden states of several layers for many texts are large.
    ("grpc.max_receive_message_length", 256 * 1024 * 1024),
    # Pings find dead peers during a call; the server accepts one every 10 seconds.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The channel reconnects to a restarted server within the back-offs of RetryPolicy.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def channel_options(target: str) -> list[tuple[str, int]]:
    """Return the options of a channel to `target`. Connections to this machine use no proxy."""
    host = target.removeprefix("dns:///").rpartition(":")[0]
    local = host in LOOPBACK_HOSTS or target.startswith("unix:")
    return [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0 if local else 1)]


@dataclass(frozen=True, slots=True)
class CallDefaults:
    """The defaults for the calls of one client."""

    timeout_seconds: float
    retry: RetryPolicy
    metadata: Metadata
    is_closed: Callable[[], bool]
    """Whether the client was closed. Closing cancels its calls, which must then not be retried."""
    throttle: RetryThrottle = field(default_factory=RetryThrottle)

    def __post_init__(self) -> None:
        _check_timeout(self.timeout_seconds)

    def attempts(self, timeout_seconds: float | None) -> Attempts:
        """Begin a call, whose deadline counts from now; raises ValueError for a bad timeout."""
        if timeout_seconds is None:
            timeout_seconds = self.timeout_seconds
        _check_timeout(timeout_seconds)
        return Attempts(self.retry, self.throttle, timeout_seconds, is_closed=self.is_closed)


def _check_timeout(timeout_seconds: float) -> None:
    if not 0 < timeout_seconds < math.inf:
        raise ValueError(f"timeout_seconds must be positive and finite, not {timeout_seconds}")
