"""The limits of arriving requests: of those of callers, of the health service, and of strangers.

Requests of the health service need no authentication, and those of strangers are authenticated by
their content. With limits of their own, a flood of them delays no caller.
"""

from collections.abc import Callable
from dataclasses import dataclass

from attendant_server.application.arriving_requests import (
    CROWDED_SECONDS,
    ArrivalLimits,
    ArrivingRequests,
)

MIN_REQUESTS = 16
"""Requests that may arrive together however little memory there is."""
MIN_BYTES_PER_SECOND = 1_000_000
"""A request that arrives at this rate is in time, also while others wait."""
MAX_HEALTH_REQUESTS = 16
"""Requests of the health service that may arrive together. Each may have the size of any other."""
MAX_WAITING_HEALTH_REQUESTS = 256
MAX_STRANGERS_BYTES = 256 * 1024
"""Largest request that has its credential in its content."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The arriving requests of callers, of the health service, and of strangers."""

    calls: ArrivingRequests
    """All other requests."""
    health: ArrivingRequests
    """Requests of the health service."""
    strangers: ArrivingRequests
    """Requests with a credential in their content, at most `MAX_STRANGERS_BYTES` each."""

    def refuse_requests(self) -> None:
        """Refuse the requests that have not arrived yet, and all later ones, with Unavailable."""
        self.calls.refuse_requests()
        self.health.refuse_requests()
        self.strangers.refuse_requests()


def new_arrivals(
    max_held_bytes: int,
    max_request_bytes: int,
    max_seconds: float,
    on_refused: Callable[[str], None],
) -> Arrivals:
    """Limits of a server that holds at most ``max_held_bytes`` of requests and answers.

    ``on_refused`` receives ``memory`` or ``unavailable`` for each refusal.
    """
    calls = ArrivalLimits(
        max(MIN_REQUESTS, max_held_bytes // max_request_bytes),
        max_seconds,
        slow_seconds=max(CROWDED_SECONDS, max_request_bytes / MIN_BYTES_PER_SECOND),
    )
    health = ArrivalLimits(
        MAX_HEALTH_REQUESTS, max_seconds, max_waiting=MAX_WAITING_HEALTH_REQUESTS
    )
    limits = (calls, health, health)
    return Arrivals(*(ArrivingRequests(each, on_refused) for each in limits))
