"""Quotas of callers without a transport, on a clock of the tests."""

import asyncio
from typing import Any

import pytest
from attendant_server import records
from attendant_server.application.admission import CallAdmission
from attendant_server.application.quotas import (
    MIN_KEPT_ACCOUNTS,
    MINUTE,
    CallerQuotas,
    TokenBucket,
    current_usage,
)
from attendant_server.callers import NO_LIMITS, Identity, Quota
from attendant_server.errors import InvalidRequest, QueueFull, QuotaExceeded, Unavailable
from attendant_server.records import CallRecord, Method
from hypothesis import example, given
from hypothesis import strategies as st

SECOND = MINUTE // 60
METHOD = Method("attendant.v1.TranslationService", "Translate", "unary")
PAUSES = st.one_of(st.integers(0, 3), st.integers(0, 2 * SECOND), st.integers(0, 3 * MINUTE))
EVENTS = st.lists(st.tuples(PAUSES, st.integers(1, 60), st.booleans()), max_size=40)


@pytest.fixture(autouse=True)
def unused_record():
    """Leaves the record of the context as it was, for the tests that follow."""
    before = records.current()
    yield
    records.begin(before)


def largest_excess(per_minute: int, admitted: list[tuple[int, int]]) -> int:
    """The most admitted in an interval above burst and rate, in parts of a nanosecond's refill."""
    excess = 0
    for start, (began, _) in enumerate(admitted):
        total = 0
        for at, amount in admitted[start:]:
            total += amount
            excess = max(excess, (total - per_minute) * MINUTE - (at - began) * per_minute)
    return excess


@given(st.integers(1, 50), EVENTS)
def test_no_interval_admits_more_than_the_burst_and_the_rate(per_minute, events):
    now, bucket, admitted = 0, TokenBucket(per_minute, 0), []
    for pause, amount, _ in events:
        now += pause
        if amount <= per_minute and not bucket.wait(amount, now):
            bucket.take(amount, now)
            admitted.append((now, amount))
    assert largest_excess(per_minute, admitted) <= 0


@example(10, [(0, 10, True), (MINUTE, 10, False), (0, 10, False), (0, 10, False)])
@given(st.integers(1, 50), EVENTS)
def test_amounts_that_are_given_back_later_admit_no_more_either(per_minute, events):
    now, bucket = 0, TokenBucket(per_minute, 0)
    admitted: list[tuple[int, int]] = []
    lent: list[tuple[int, int]] = []
    for pause, amount, is_refused_later in events:
        now += pause
        if amount > per_minute or bucket.wait(amount, now):
            while lent:
                taken, lent_amount = lent.pop()
                bucket.give_back(lent_amount, taken, now)
            continue
        bucket.take(amount, now)
        (lent if is_refused_later else admitted).append((now, amount))
    assert largest_excess(per_minute, admitted) <= 0


@given(st.integers(1, 50), EVENTS)
def test_an_amount_fits_after_the_stated_wait_and_not_before(per_minute, events):
    now, bucket = 0, TokenBucket(per_minute, 0)
    for pause, amount, is_charged in events:
        now += pause
        if is_charged:  # whatever is left
            bucket.take(amount, now)
            continue
        if amount > per_minute:
            continue
        if wait := bucket.wait(amount, now):
            assert bucket.wait(amount, now + wait - 1) == 1
            assert bucket.wait(amount, now + wait) == 0
            now += wait
        bucket.take(amount, now)


@given(st.integers(1, 50), EVENTS)
def test_what_is_given_back_at_once_was_never_taken(per_minute, events):
    now, bucket, other = 0, TokenBucket(per_minute, 0), TokenBucket(per_minute, 0)
    for pause, amount, is_refused_later in events:
        now += pause
        if amount > per_minute or other.wait(amount, now):
            continue
        bucket.take(amount, now)
        if is_refused_later:
            bucket.give_back(amount, now, now)
        else:
            other.take(amount, now)
        assert bucket.left(now) == other.left(now)


@given(st.integers(1, 50), EVENTS)
def test_what_is_charged_is_admitted_less_later(per_minute, events):
    now, bucket, taken = 0, TokenBucket(per_minute, 0), 0
    for pause, amount, is_charged in events:
        now += pause
        if is_charged:
            bucket.take(amount, now)
            taken += amount
        elif amount <= per_minute and not bucket.wait(amount, now):
            bucket.take(amount, now)
            taken += amount
            assert (taken - per_minute) * MINUTE <= now * per_minute


OWN = Quota()
TEXTS, TOKENS = Quota(max_texts_per_minute=10), Quota(max_tokens_per_minute=60)


class Quotas:
    """The quotas of callers on a clock that stands still between `pass_seconds`."""

    def __init__(self, defaults: Quota = NO_LIMITS) -> None:
        self.now = 0
        self.quotas = CallerQuotas(defaults, lambda: self.now)

    def pass_seconds(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)

    def call(
        self, num_texts: int = 0, num_tokens: int = 0, quota: Quota = OWN, name: str = "a"
    ) -> CallRecord:
        """A call that counts texts and tokens; returns its record."""
        record = CallRecord(METHOD, caller=Identity(name, quota=quota))
        records.begin(record)
        with self.quotas.call():
            current_usage().take_texts(num_texts)
            current_usage().take_tokens(num_tokens)
        return record

    def refusal(self, *counts: Any, **options: Any) -> QuotaExceeded:
        with pytest.raises(QuotaExceeded) as failure:
            self.call(*counts, **options)
        return failure.value


def test_a_refusal_names_the_quota_its_limit_and_the_wait():
    quotas = Quotas()
    quotas.call(8, quota=TEXTS)
    refusal = quotas.refusal(5, quota=TEXTS)
    assert str(refusal) == (
        "max_texts_per_minute: at most 10 for this caller; 2 are left, the call needs 5"
    )
    assert refusal.retry_after_seconds == 18
    quotas.pass_seconds(17.999)
    assert quotas.refusal(5, quota=TEXTS).retry_after_seconds == 0.001
    quotas.pass_seconds(0.001)
    quotas.call(5, quota=TEXTS)


def test_a_call_larger_than_the_limit_is_refused_without_a_wait():
    quotas = Quotas()
    for refusal in (
        quotas.refusal(11, quota=TEXTS),
        quotas.refusal(1, 61, quota=TOKENS),
        quotas.refusal(61, quota=TOKENS),
    ):
        assert refusal.retry_after_seconds is None
        assert "so a call of" in str(refusal)
    quotas.call(10, quota=TEXTS)


def test_a_call_that_is_refused_for_its_tokens_takes_no_texts():
    quotas, quota = Quotas(), Quota(max_texts_per_minute=10, max_tokens_per_minute=60)
    quotas.call(1, 50, quota=quota)
    assert "max_tokens_per_minute" in str(quotas.refusal(9, 30, quota=quota))
    assert quotas.call(9, 10, quota=quota).num_counted_texts == 9


def test_a_caller_without_tokens_is_refused_before_any_work():
    quotas = Quotas()
    quotas.call(1, 60, quota=TOKENS)
    record = CallRecord(METHOD, caller=Identity("a", quota=TOKENS))
    records.begin(record)
    with pytest.raises(QuotaExceeded), quotas.quotas.call():
        current_usage().take_texts(2)
    assert record.exceeded_quota == "max_tokens_per_minute"


def test_tokens_that_are_charged_refuse_later_calls_but_not_their_own():
    quotas = Quotas()
    record = CallRecord(METHOD, caller=Identity("a", quota=TOKENS))
    records.begin(record)
    with quotas.quotas.call():
        current_usage().take_tokens(10)
        current_usage().charge_tokens(110)
    assert record.num_counted_tokens == 120
    refusal = quotas.refusal(1, 1, quota=TOKENS)
    assert "at most 60 for this caller; 0 are left, the call needs 1" in str(refusal)
    assert refusal.retry_after_seconds == 61
    quotas.pass_seconds(61)
    quotas.call(1, 1, quota=TOKENS)


def fail_after_five_texts(quotas: Quotas, error: Exception, quota: Quota = TEXTS) -> None:
    records.begin(CallRecord(METHOD, caller=Identity("a", quota=quota)))
    with pytest.raises(type(error)), quotas.quotas.call():
        take_five_and_raise(error)


def take_five_and_raise(error: Exception) -> None:
    current_usage().take_texts(5)
    current_usage().charge_tokens(1000)
    raise error


def test_refused_calls_take_nothing_and_failed_ones_do():
    quotas = Quotas()
    for error in (QueueFull("full", 1.0), Unavailable("stopping")):
        fail_after_five_texts(quotas, error)
    quotas.call(5, quota=TEXTS)
    fail_after_five_texts(quotas, InvalidRequest("texts", "bad"))
    quotas.refusal(1, quota=TEXTS)


def test_refused_calls_pay_for_no_charges_and_failed_ones_do():
    quotas = Quotas()
    fail_after_five_texts(quotas, QueueFull("full", 1.0), quota=TOKENS)
    assert records.current().num_counted_tokens == 0
    quotas.call(1, 60, quota=TOKENS)
    quotas.pass_seconds(60)
    fail_after_five_texts(quotas, InvalidRequest("texts", "bad"), quota=TOKENS)
    assert records.current().num_counted_tokens == 1000
    assert quotas.refusal(1, 1, quota=TOKENS).retry_after_seconds == 941


def test_a_caller_without_a_limit_owes_nothing_when_it_gets_one_again():
    quotas = Quotas()
    fail_after_five_texts(quotas, InvalidRequest("texts", "bad"), quota=TOKENS)
    quotas.call(1, 1000)
    quotas.call(1, 60, quota=TOKENS)


def test_callers_have_quotas_of_their_own_and_else_the_defaults():
    quotas = Quotas(defaults=TEXTS)
    quotas.call(10)
    quotas.refusal(1)
    quotas.call(10, name="b")
    quotas.call(1000, quota=Quota(max_texts_per_minute=0), name="c")


def test_a_changed_limit_keeps_the_level_of_the_bucket():
    quotas = Quotas()
    quotas.call(10, quota=TEXTS)
    assert quotas.refusal(1, quota=Quota(max_texts_per_minute=600)).retry_after_seconds == 0.1
    assert quotas.refusal(1, quota=TEXTS).retry_after_seconds == 6


def test_a_first_limit_begins_with_a_full_bucket():
    quotas = Quotas()
    quotas.call(1000)
    quotas.call(10, quota=TEXTS)


@pytest.mark.parametrize("outcome", ["answer", "failure", "cancelled", "timeout"])
def test_a_call_no_longer_counts_however_it_ends(outcome: str):
    quota = Quota(max_concurrent_calls=1)

    async def work() -> None:
        if outcome == "failure":
            raise ValueError(outcome)
        if outcome != "answer":
            await asyncio.Event().wait()

    async def run() -> None:
        quotas = CallerQuotas(quota)
        limit = 0.01 if outcome == "timeout" else 60.0
        admission = CallAdmission(8, limit, lambda _: None, quotas)
        call = asyncio.create_task(admission.run(work))
        await asyncio.sleep(0)
        if outcome == "cancelled":
            with pytest.raises(QuotaExceeded, match="^max_concurrent_calls: at most 1 for"):
                await admission.run(work)
            call.cancel()
        await asyncio.wait([call])
        outcomes = await asyncio.gather(call, return_exceptions=True)
        assert not isinstance(outcomes[0], QuotaExceeded)
        with quotas.call():
            pass

    asyncio.run(run())


def test_accounts_are_forgotten_once_they_are_like_new_ones():
    quotas = Quotas(defaults=TEXTS)
    for number in range(MIN_KEPT_ACCOUNTS):
        quotas.call(1, name=str(number))
    quotas.pass_seconds(5)
    quotas.call(10, name="busy")
    assert len(quotas.quotas._accounts) == MIN_KEPT_ACCOUNTS + 1
    quotas.pass_seconds(1)
    for number in range(2 * MIN_KEPT_ACCOUNTS):
        quotas.call(0, name=f"new {number}")
    assert len(quotas.quotas._accounts) <= MIN_KEPT_ACCOUNTS + 1
    quotas.refusal(10, name="busy")
