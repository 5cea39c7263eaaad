"""Decides whether and when a failed call is retried.

This module never sleeps and never calls a server. The clock and the random numbers are passed in.
"""

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from attendant_client.errors import CallError

RETRIED_CODES = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Decides which failures are retried.

    UNAVAILABLE is retried after an exponential back-off with full jitter: a random time between 0
    and `initial_backoff_seconds` · `backoff_multiplier`^(attempts so far - 1), at most
    `max_backoff_seconds`. If the server states a wait, the client waits that time instead.
    RESOURCE_EXHAUSTED is retried only if the server states a wait. CANCELLED is retried like
    UNAVAILABLE: a stopping server cancels calls that it has not begun. UnloadModel is retried only
    if the server states a wait: the failed attempt may have unloaded the model, and another one
    may have been loaded since. The other calls change nothing, or nothing a second time. No other
    failure is retried, and none once the client was closed. While most of a client's retries fail,
    its calls are not retried (RetryThrottle).

    `max_attempts` includes the first attempt; 1 means no retries. Raises ValueError for bad values.
    """

    max_attempts: int = 4
    initial_backoff_seconds: float = 0.1
    max_backoff_seconds: float = 5.0
    backoff_multiplier: float = 2.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts}")
        if not 0 <= self.initial_backoff_seconds <= self.max_backoff_seconds < math.inf:
            raise ValueError("back-offs must be finite, and the initial one not above the maximum")
        if not 1 <= self.backoff_multiplier < math.inf:
            raise ValueError(
                f"backoff_multiplier must be at least 1, not {self.backoff_multiplier}"
            )

    def backoff_seconds(self, num_attempts: int, chance: float) -> float:
        """Return the wait in seconds after `num_attempts` failures; `chance` is in [0, 1)."""
        longest = self.initial_backoff_seconds * self.backoff_multiplier ** (num_attempts - 1)
        return chance * min(self.max_backoff_seconds, longest)


class RetryThrottle:
    """Stops blind retries of one client while most of them fail.

    A failed retry takes one token, a successful call returns `token_ratio` tokens. Retries are
    allowed while more than half of `max_tokens` is left. Unlike in gRFC A6 ("throttling"), the
    failure of a first attempt takes nothing: when one of several servers dies, all its calls fail
    at once and succeed elsewhere. May be used from several threads.
    """

    def __init__(self, max_tokens: float = 10.0, token_ratio: float = 0.1) -> None:
        self._max_tokens = max_tokens
        self._token_ratio = token_ratio
        self._tokens = max_tokens
        self._lock = threading.Lock()

    def record_success(self) -> None:
        """Return `token_ratio` tokens."""
        with self._lock:
            self._tokens = min(self._max_tokens, self._tokens + self._token_ratio)

    def record_failure(self, is_retry: bool) -> bool:
        """Take one token for a failed retry; return whether another one is allowed."""
        with self._lock:
            if is_retry:
                self._tokens = max(0.0, self._tokens - 1)
            return self._tokens > self._max_tokens / 2


_generator = random.Random()
"""The client's own, so that its waits neither change the numbers of a seeded application nor depend
on them: processes with the same seed would retry at the same moments."""


class Attempts:
    """The attempts of one call: how much time is left, and how long to wait after a failure."""

    def __init__(
        self,
        policy: RetryPolicy,
        throttle: RetryThrottle,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = _generator.random,
        is_closed: Callable[[], bool] = lambda: False,
        is_idempotent: bool = True,
    ) -> None:
        self._policy = policy
        self._throttle = throttle
        self._clock = clock
        self._chance = chance
        self._is_closed = is_closed
        self._is_idempotent = is_idempotent
        self._deadline = clock() + timeout_seconds
        self._num_attempts = 1

    def remaining_seconds(self) -> float:
        """Return the time until the deadline of the call, never negative."""
        return max(0.0, self._deadline - self._clock())

    def timeout_seconds(self) -> float | None:
        """Return the time until the deadline as gRPC takes it; None if there is no deadline."""
        return None if self._deadline == math.inf else self.remaining_seconds()

    def record_progress(self) -> None:
        """Note that a stream goes on: the attempts before do not count any more."""
        self._num_attempts = 1

    def record_success(self) -> None:
        """Note that the call succeeded."""
        self._throttle.record_success()

    def wait_seconds_after(self, failure: CallError) -> float:
        """Return how long to wait before the next attempt; raise `failure` if there is none."""
        wait_seconds = self._wait_seconds(failure)
        if (
            wait_seconds is None
            or self._num_attempts >= self._policy.max_attempts
            or wait_seconds >= self.remaining_seconds()
        ):
            raise failure
        self._num_attempts += 1
        return wait_seconds

    def _wait_seconds(self, failure: CallError) -> float | None:
        if failure.code not in RETRIED_CODES or self._is_closed():
            return None
        if failure.retry_after_seconds is not None:
            # The server sets the pace of these retries, so they need no throttle.
            return failure.retry_after_seconds
        if failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED or not self._is_idempotent:
            return None
        if not self._throttle.record_failure(is_retry=self._num_attempts > 1):
            return None
        return self._policy.backoff_seconds(self._num_attempts, self._chance())
