"""Quotas: limits of one caller's concurrent calls, and of its texts and tokens per minute.

The rates are limited by token buckets. A bucket holds the limit of one minute when it is full: a
caller that has paused may send so much at once. Refused calls take nothing. Work that turns out to
be necessary once a call has been admitted is charged: it may empty a bucket below zero.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn

from attendant_server import records
from attendant_server.callers import NO_LIMITS, Identity, Quota
from attendant_server.errors import QueueFull, QuotaExceeded, Unavailable
from attendant_server.records import CallRecord

RETRY_AFTER_SECONDS = 0.1
"""For a caller with too many concurrent calls."""
MINUTE = 60_000_000_000
"""In nanoseconds, the unit of all times here. Whole numbers keep the limits exact."""
MILLISECOND = 1_000_000
MIN_KEPT_ACCOUNTS = 1024


class TokenBucket:
    """Admits at most ``per_minute`` at once, and at that rate; 0 for no limit."""

    def __init__(self, per_minute: int, now: int) -> None:
        self.per_minute = per_minute
        self._level = per_minute * MINUTE  # in parts of which each nanosecond brings `per_minute`
        self._updated = now

    def change(self, per_minute: int, now: int) -> None:
        """Replace the limit. The bucket keeps its level, so that a change brings nothing."""
        self._refill(now)
        was_limited, self.per_minute = self.per_minute > 0, per_minute
        full = per_minute * MINUTE
        self._level = min(self._level, full) if was_limited and per_minute else full

    def is_full(self, now: int) -> bool:
        """Whether it is like a new bucket."""
        self._refill(now)
        return self._level == self.per_minute * MINUTE

    def left(self, now: int) -> int:
        """The amount that can be taken now, if there is a limit."""
        self._refill(now)
        return max(0, self._level // MINUTE)

    def wait(self, amount: int, now: int) -> int:
        """Time until this amount, at most ``per_minute``, can be taken; 0 for now."""
        self._refill(now)
        missing = amount * MINUTE - self._level
        return -(-missing // self.per_minute) if self.per_minute and missing > 0 else 0

    def take(self, amount: int, now: int) -> None:
        """Take an amount. If less is left, later amounts wait until the rest is refilled, too."""
        if self.per_minute:
            self._refill(now)
            self._level -= amount * MINUTE

    def give_back(self, amount: int, taken: int, now: int) -> None:
        """Undo taking an amount at the time ``taken``.

        The bucket would have been full at times without it, and would then not have been refilled.
        So the refill since then is withheld.
        """
        self._refill(now)
        self._level += max(0, amount * MINUTE - (now - taken) * self.per_minute)
        self._level = min(self._level, self.per_minute * MINUTE)

    def _refill(self, now: int) -> None:
        filled = self._level + (now - self._updated) * self.per_minute
        self._level, self._updated = min(filled, self.per_minute * MINUTE), now


class _Account:
    """The state of one caller."""

    def __init__(self, quota: Quota, defaults: Quota, now: int) -> None:
        self.num_calls = 0
        self.texts, self.tokens = TokenBucket(0, now), TokenBucket(0, now)
        self.change(quota, defaults, now)

    def change(self, quota: Quota, defaults: Quota, now: int) -> None:
        """Replace the limits."""
        self.quota = quota
        self.max_calls, max_texts, max_tokens = (
            (default if limit is None else limit) or 0
            for limit, default in zip(quota, defaults, strict=True)
        )
        self.texts.change(max_texts, now)
        self.tokens.change(max_tokens, now)

    def is_idle(self, now: int) -> bool:
        """Whether it is like a new account."""
        return not self.num_calls and self.texts.is_full(now) and self.tokens.is_full(now)


class CallUsage:
    """Counts the texts and tokens of one call for the quotas of its caller."""

    def __init__(self, account: _Account, record: CallRecord, clock: Callable[[], int]) -> None:
        self._account, self._record, self._clock = account, record, clock
        self._taken: list[tuple[TokenBucket, int, int]] = []

    @property
    def has_rates(self) -> bool:
        """Whether the caller's texts or tokens per minute are limited."""
        return self._account.texts.per_minute > 0 or self._account.tokens.per_minute > 0

    def of_part(self, record: CallRecord, on_counted: Callable[[], None]) -> "CallUsage":
        """The usage of texts of this call, which is a stream, by the record of the texts.

        ``on_counted`` is called once the tokens of the texts have been counted.
        """
        return _PartUsage(self._account, record, self._clock, on_counted)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Let the block count here. What it took is given back if it is refused."""
        outer = _current.set(self)
        try:
            yield
        except (QueueFull, QuotaExceeded, Unavailable):
            self.give_back()
            raise
        finally:
            _current.reset(outer)

    def begin(self) -> None:
        """Count the call as one in progress, or raise QuotaExceeded."""
        limit = self._account.max_calls
        if limit and self._account.num_calls >= limit:
            problem = f"at most {limit} for this caller, and as many are in progress"
            self._refuse("max_concurrent_calls", problem, RETRY_AFTER_SECONDS)
        self._account.num_calls += 1

    def end(self) -> None:
        """The call is no longer in progress."""
        self._account.num_calls -= 1

    def take_texts(self, num_texts: int) -> None:
        """Count texts before any work on them; raises QuotaExceeded.

        A text has at least one token, so a caller with fewer tokens left is refused here already.
        """
        self._check("max_tokens_per_minute", self._account.tokens, num_texts)
        self._take("max_texts_per_minute", self._account.texts, num_texts)
        self._record.num_counted_texts += num_texts

    def take_tokens(self, num_tokens: int) -> None:
        """Count the tokens of texts before a model reads them; raises QuotaExceeded."""
        self._take("max_tokens_per_minute", self._account.tokens, num_tokens)
        self._record.num_counted_tokens += num_tokens

    def charge_tokens(self, num_tokens: int) -> None:
        """Count tokens that the models read again for an admitted call, whatever is left.

        How many there are is known only when work has been done. So they refuse later calls of the
        caller and not this one.
        """
        self._charge(self._account.tokens, num_tokens)
        self._record.num_counted_tokens += num_tokens

    def give_back(self) -> None:
        """Count nothing for this call, since it was refused."""
        now = self._clock()
        for bucket, amount, taken in self._taken:
            bucket.give_back(amount, taken, now)
        self._taken.clear()
        self._record.num_counted_texts = self._record.num_counted_tokens = 0

    def _take(self, quota: str, bucket: TokenBucket, amount: int) -> None:
        self._check(quota, bucket, amount)
        self._charge(bucket, amount)

    def _charge(self, bucket: TokenBucket, amount: int) -> None:
        if bucket.per_minute:
            now = self._clock()
            bucket.take(amount, now)
            self._taken.append((bucket, amount, now))

    def _check(self, quota: str, bucket: TokenBucket, amount: int) -> None:
        """Raise QuotaExceeded if the amount cannot be taken now."""
        limit, now = bucket.per_minute, self._clock()
        if limit and amount > limit:
            problem = f"at most {limit} for this caller, so a call of {amount} is never possible"
            self._refuse(quota, problem, None)
        if wait := bucket.wait(amount, now):
            left = bucket.left(now)
            problem = f"at most {limit} for this caller; {left} are left, the call needs {amount}"
            self._refuse(quota, problem, -(-wait // MILLISECOND) / 1000)

    def _refuse(self, quota: str, problem: str, retry_after_seconds: float | None) -> NoReturn:
        self._record.exceeded_quota = quota
        raise QuotaExceeded(f"{quota}: {problem}", retry_after_seconds)


class _PartUsage(CallUsage):
    """Counts texts of a stream that are answered together."""

    def __init__(
        self,
        account: _Account,
        record: CallRecord,
        clock: Callable[[], int],
        on_counted: Callable[[], None],
    ) -> None:
        super().__init__(account, record, clock)
        self._on_counted = on_counted

    def take_tokens(self, num_tokens: int) -> None:
        """Count the tokens, and report it; raises QuotaExceeded."""
        super().take_tokens(num_tokens)
        self._on_counted()


class CallerQuotas:
    """The quotas of all callers. On the event loop only."""

    def __init__(
        self, defaults: Quota = NO_LIMITS, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """``defaults`` are the limits of callers without their own."""
        self._defaults, self._clock = defaults, clock
        self._accounts: dict[str, _Account] = {}
        self._max_accounts = MIN_KEPT_ACCOUNTS

    @contextmanager
    def call(self) -> Iterator[None]:
        """The block of a call, whose caller is in its record; raises QuotaExceeded."""
        record = records.current()
        usage = CallUsage(self._account(record.caller), record, self._clock)
        usage.begin()
        try:
            with usage.counting():
                yield
        finally:
            usage.end()

    def _account(self, caller: Identity) -> _Account:
        account = self._accounts.get(caller.name)
        if account is None:
            if len(self._accounts) >= self._max_accounts:
                self._forget_idle()
            account = _Account(caller.quota, self._defaults, self._clock())
            self._accounts[caller.name] = account
        elif account.quota != caller.quota:
            account.change(caller.quota, self._defaults, self._clock())
        return account

    def _forget_idle(self) -> None:
        """Bound the accounts by the number of callers that have called a short time ago."""
        now, accounts = self._clock(), self._accounts.items()
        self._accounts = {name: each for name, each in accounts if not each.is_idle(now)}
        self._max_accounts = max(MIN_KEPT_ACCOUNTS, 2 * len(self._accounts))


_current: ContextVar[CallUsage] = ContextVar("usage")


def current_usage() -> CallUsage:
    """The usage of the running task's call; without limits outside of calls."""
    usage = _current.get(None)
    if usage is None:
        account = _Account(NO_LIMITS, NO_LIMITS, 0)
        usage = CallUsage(account, records.current(), time.monotonic_ns)
    return usage
