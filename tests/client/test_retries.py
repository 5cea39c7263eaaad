"""Retries of failed calls: the policy with a fake clock, and both clients."""

import itertools
import math
import random

import pytest
from attendant_client import (
    CallCancelledError,
    DeadlineExceededError,
    OverloadedError,
    ServerError,
    UnavailableError,
)
from attendant_client.errors import ERROR_BY_CODE
from attendant_client.retries import RETRIED_CODES, Attempts, RetryPolicy, RetryThrottle
from google.rpc import code_pb2
from grpc import StatusCode

from tests.client.script import Fault

POLICY = RetryPolicy(
    max_attempts=5, initial_backoff_seconds=1.0, max_backoff_seconds=3.0, backoff_multiplier=2.0
)
UNAVAILABLE = Fault(code_pb2.UNAVAILABLE)
CANCELLED = Fault(code_pb2.CANCELLED)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def failure(code=StatusCode.UNAVAILABLE, retry_after_seconds=None):
    return ERROR_BY_CODE[code]("failed", code, retry_after_seconds)


def attempts(policy=POLICY, throttle=None, timeout_seconds=1000.0, clock=None, chance=1.0):
    return Attempts(
        policy, throttle or RetryThrottle(), timeout_seconds, clock or Clock(), lambda: chance
    )


def test_the_back_off_neither_reads_nor_changes_the_random_numbers_of_the_application():
    random.seed(5)
    state, waits = random.getstate(), []
    for _ in range(2):
        random.seed(5)
        waits.append(Attempts(POLICY, RetryThrottle(), 1000.0).wait_seconds_after(failure()))
    assert waits[0] != waits[1]
    assert random.getstate() == state


def test_back_off_doubles_up_to_its_limit():
    call = attempts()
    assert [call.wait_seconds_after(failure()) for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.75])
def test_back_off_has_full_jitter(chance):
    assert attempts(chance=chance).wait_seconds_after(failure()) == chance


def test_no_more_than_max_attempts_are_made():
    call = attempts(RetryPolicy(max_attempts=2))
    call.wait_seconds_after(failure())
    with pytest.raises(UnavailableError):
        call.wait_seconds_after(failure())


def test_one_attempt_means_no_retry():
    with pytest.raises(UnavailableError):
        attempts(RetryPolicy(max_attempts=1)).wait_seconds_after(failure())


@pytest.mark.parametrize("code", set(ERROR_BY_CODE) - set(RETRIED_CODES))
def test_other_failures_are_never_tried_again(code):
    with pytest.raises(ERROR_BY_CODE[code]):
        attempts().wait_seconds_after(failure(code, retry_after_seconds=0.1))


@pytest.mark.parametrize("code", RETRIED_CODES)
def test_nothing_is_tried_again_once_the_client_was_closed(code):
    call = Attempts(POLICY, RetryThrottle(), 1000.0, is_closed=lambda: True)
    with pytest.raises(ERROR_BY_CODE[code]):
        call.wait_seconds_after(failure(code, retry_after_seconds=0.1))


def test_overload_is_tried_again_only_when_the_server_says_when():
    exhausted = StatusCode.RESOURCE_EXHAUSTED
    assert attempts().wait_seconds_after(failure(exhausted, retry_after_seconds=7.0)) == 7.0
    with pytest.raises(OverloadedError):
        attempts().wait_seconds_after(failure(exhausted))


def test_the_time_that_the_server_gives_replaces_the_back_off():
    assert attempts().wait_seconds_after(failure(retry_after_seconds=7.0)) == 7.0


def test_a_server_that_asks_not_to_be_tried_again_is_not():
    with pytest.raises(UnavailableError):
        attempts().wait_seconds_after(failure(retry_after_seconds=math.inf))


def test_no_wait_reaches_past_the_deadline():
    clock = Clock()
    call = attempts(timeout_seconds=2.5, clock=clock)
    assert call.wait_seconds_after(failure()) == 1.0
    clock.now += 1.0
    assert call.remaining_seconds() == 1.5
    with pytest.raises(UnavailableError):
        call.wait_seconds_after(failure())
    clock.now += 9.0
    assert call.remaining_seconds() == 0.0


def test_a_client_whose_retries_mostly_fail_stops_trying_again():
    throttle = RetryThrottle(max_tokens=4, token_ratio=0.5)
    call = attempts(throttle=throttle)
    call.wait_seconds_after(failure())
    call.wait_seconds_after(failure())
    with pytest.raises(UnavailableError):
        call.wait_seconds_after(failure())
    with pytest.raises(UnavailableError):
        attempts(throttle=throttle).wait_seconds_after(failure())


def test_all_calls_to_a_server_that_dies_are_tried_again():
    throttle = RetryThrottle()
    for call in [attempts(throttle=throttle) for _ in range(100)]:
        call.wait_seconds_after(failure())


def test_successes_allow_retries_again():
    throttle = RetryThrottle(max_tokens=4, token_ratio=0.5)
    for _ in range(2):
        throttle.record_failure(is_retry=True)
    for _ in range(3):
        attempts(throttle=throttle).record_success()
    assert attempts(throttle=throttle).wait_seconds_after(failure()) == 1.0


def test_waits_that_the_server_asks_for_do_not_count_as_blind_retries():
    throttle = RetryThrottle(max_tokens=2)
    call = attempts(throttle=throttle)
    for _ in range(4):
        call.wait_seconds_after(failure(retry_after_seconds=1.0))
    assert throttle.record_failure(is_retry=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_attempts": 0},
        {"initial_backoff_seconds": -1.0},
        {"initial_backoff_seconds": 9.0, "max_backoff_seconds": 1.0},
        {"max_backoff_seconds": math.inf},
        {"max_backoff_seconds": math.nan},
        {"backoff_multiplier": 0.5},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(settings):
    with pytest.raises(ValueError):
        RetryPolicy(**settings)


def test_an_unavailable_server_is_tried_again(client, script):
    script.faults = [UNAVAILABLE, UNAVAILABLE]
    assert client.translate("a").text == "A"
    assert script.calls == ["Translate"] * 3


def test_a_call_that_the_server_cancels_is_tried_again(client, script):
    script.faults = [CANCELLED, CANCELLED]
    assert client.translate("a").text == "A"
    assert script.calls == ["Translate"] * 3


def test_a_server_that_always_cancels_is_given_up(client, script):
    script.faults = [CANCELLED] * 9
    with pytest.raises(CallCancelledError, match="as scripted"):
        client.translate("a")
    assert len(script.calls) == 3


def test_a_server_that_stays_unavailable_is_given_up(client, script):
    script.faults = [UNAVAILABLE] * 9
    with pytest.raises(UnavailableError, match="as scripted"):
        client.translate("a")
    assert len(script.calls) == 3


def test_an_outage_soon_ends_all_retries_and_the_first_success_allows_them_again(client, script):
    script.faults = [UNAVAILABLE] * 100
    for _ in range(20):
        with pytest.raises(UnavailableError):
            client.translate("a")
    # Two calls with all three attempts, and one whose second attempt was the fifth failed retry.
    assert len(script.calls) == 2 * 3 + 2 + 17
    script.faults.clear()
    client.translate("a")
    script.faults = [UNAVAILABLE]
    assert client.translate("a").text == "A"


def test_an_overloaded_server_is_tried_again_after_its_retry_info(client, script):
    script.faults = [Fault(code_pb2.RESOURCE_EXHAUSTED, retry_delay_seconds=0.02)]
    assert client.translate("a").text == "A"
    assert script.calls == ["Translate"] * 2


def test_an_overloaded_server_is_tried_again_after_its_pushback(client, script):
    pushback = (("grpc-retry-pushback-ms", "20"),)
    script.faults = [Fault(code_pb2.RESOURCE_EXHAUSTED, metadata=pushback)]
    assert client.translate("a").text == "A"
    assert script.calls == ["Translate"] * 2


def test_an_overloaded_server_that_names_no_time_is_not_tried_again(client, script):
    script.faults = [Fault(code_pb2.RESOURCE_EXHAUSTED, "the queue is full")]
    with pytest.raises(OverloadedError) as caught:
        client.translate("a")
    assert caught.value.retry_after_seconds is None
    assert len(script.calls) == 1


def test_a_time_past_the_deadline_is_not_waited_for(client, script):
    script.faults = [Fault(code_pb2.RESOURCE_EXHAUSTED, retry_delay_seconds=3600.5)]
    with pytest.raises(OverloadedError) as caught:
        client.translate("a")
    assert caught.value.retry_after_seconds == 3600.5
    assert len(script.calls) == 1


@pytest.mark.parametrize("fault", [UNAVAILABLE, CANCELLED])
def test_an_unload_that_may_have_been_carried_out_is_not_tried_again(client, script, fault):
    script.faults = [fault]
    with pytest.raises(ERROR_BY_CODE[StatusCode[code_pb2.Code.Name(fault.code)]]):
        client.unload_model("upper")
    assert script.calls == ["UnloadModel"]


def test_an_unload_that_the_server_has_not_begun_is_tried_again(client, script):
    script.faults = [Fault(code_pb2.RESOURCE_EXHAUSTED, retry_delay_seconds=0.02)]
    assert client.unload_model("upper") == "upper/1"
    assert script.calls == ["UnloadModel"] * 2


def test_a_negative_pushback_forbids_retries(client, script):
    script.faults = [Fault(code_pb2.UNAVAILABLE, metadata=(("grpc-retry-pushback-ms", "-1"),))]
    with pytest.raises(UnavailableError):
        client.translate("a")
    assert len(script.calls) == 1


def test_details_that_cannot_be_read_are_no_advice(client, script):
    broken = (("grpc-status-details-bin", b"\x01broken"),)
    script.faults = [Fault(code_pb2.RESOURCE_EXHAUSTED, metadata=broken)]
    with pytest.raises(OverloadedError) as caught:
        client.translate("a")
    assert caught.value.retry_after_seconds is None


def test_an_internal_error_is_not_tried_again(client, script):
    script.faults = [Fault(code_pb2.INTERNAL)]
    with pytest.raises(ServerError):
        client.translate("a")
    assert len(script.calls) == 1


def test_a_slow_call_ends_at_its_deadline(client):
    with pytest.raises(DeadlineExceededError):
        client.translate("a slow text", timeout_seconds=0.2)


def test_every_attempt_gets_what_is_left_of_the_time(connect, script):
    script.faults = [UNAVAILABLE]
    client = connect(timeout_seconds=300)
    client.translate("a", timeout_seconds=5000)
    client.models()
    assert [round(seconds, -2) for seconds in script.time_left] == [5000, 300]


def test_a_server_that_is_not_there_is_unavailable(connect):
    with pytest.raises(UnavailableError):
        connect("127.0.0.1:1").models()


def test_a_stream_that_fails_before_its_first_piece_is_tried_again(client, script):
    script.faults = [CANCELLED, Fault(code_pb2.RESOURCE_EXHAUSTED, retry_delay_seconds=0.02)]
    assert list(client.stream_translate("one two")) == ["ONE ", "TWO"]
    assert script.calls == ["StreamTranslate"] * 3


def test_a_stream_that_fails_after_its_first_piece_is_not_tried_again(client, script):
    with pytest.raises(UnavailableError, match="broken in the middle"):
        list(client.stream_translate("this breaks here"))
    assert script.calls == ["StreamTranslate"]


def test_a_stream_ends_at_its_deadline(client):
    with pytest.raises(DeadlineExceededError):
        list(client.stream_translate("a slow text", timeout_seconds=0.2))


def test_waits_with_jitter_differ():
    waits = {attempts(chance=c / 7).wait_seconds_after(failure()) for c in range(7)}
    assert len(waits) == 7
    assert all(a < b for a, b in itertools.pairwise(sorted(waits)))
