import time

import grpc
import pytest
from attendant.v1.translation_pb2 import StreamTranslateRequest, TranslateOptions, TranslateRequest

from tests.support.serving import TRANSLATION_MODEL, Running, failure_of, wait_until

REQUEST = TranslateRequest(texts=["The dog sees the king."])
ENDLESS = TranslateOptions(min_output_tokens=64)
METHOD = {"grpc_service": "attendant.v1.TranslationService", "grpc_method": "Translate"}


def num_encoded(running: Running) -> float:
    return running.metric("attendant_encode_batch_texts_sum", model=TRANSLATION_MODEL)


def num_dropped(running: Running, reason: str) -> float:
    name = "attendant_dropped_texts_total"
    return running.metric(name, model=TRANSLATION_MODEL, reason=reason)


def test_a_call_cancelled_in_the_queue_is_never_run(start):
    running = start()
    with running.held_engine():
        before = num_encoded(running)
        call = running.translation.Translate.future(REQUEST)
        running.wait_for_queued(1)
        call.cancel()
        running.wait_for_queued(0)
    wait_until(lambda: num_dropped(running, "cancelled") == 1)
    assert running.translation.Translate(REQUEST).translations[0].hypotheses
    assert num_encoded(running) == before + 1
    name = "grpc_server_handled_total"
    wait_until(lambda: running.metric(name, grpc_code="CANCELLED", **METHOD) == 1)


def test_a_stream_cancelled_while_it_runs_gives_its_row_back(start):
    running = start(max_rows=1, max_beam_size=1)
    stream = running.translation.StreamTranslate(
        StreamTranslateRequest(text=REQUEST.texts[0], options=ENDLESS)
    )
    next(stream)
    stream.cancel()
    wait_until(lambda: running.metric("attendant_rows_used") == 0)
    assert running.translation.Translate(REQUEST).translations[0].hypotheses


def test_cancelling_one_call_leaves_its_batch_mates_alone(start):
    running = start()
    alone = running.translation.Translate(REQUEST).translations
    with running.held_engine():
        calls = [running.translation.Translate.future(REQUEST) for _ in range(4)]
        running.wait_for_queued(4)
        calls[1].cancel()
        running.wait_for_queued(3)
    for call in (calls[0], calls[2], calls[3]):
        assert call.result().translations[0].hypotheses[0].text == alone[0].hypotheses[0].text


def test_a_call_whose_deadline_passes_in_the_queue_is_answered_then_and_never_run(start):
    running = start()
    with running.held_engine():
        before = num_encoded(running)
        failure = failure_of(running.translation.Translate, REQUEST, timeout=0.2)
        assert failure.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        running.wait_for_queued(0)
    assert running.translation.Translate(REQUEST).translations[0].hypotheses
    assert num_encoded(running) == before + 1
    wait_until(lambda: num_dropped(running, "expired") == 1)
    name = "grpc_server_handled_total"
    handled = {"grpc_code": "DEADLINE_EXCEEDED", **METHOD}
    wait_until(lambda: running.metric(name, **handled) == 1)


def test_a_deadline_that_has_passed_already_runs_nothing(running: Running):
    before = num_encoded(running)
    failure = failure_of(running.translation.Translate, REQUEST, timeout=0)
    assert failure.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert num_encoded(running) == before


@pytest.mark.parametrize("timeout", [None, 60])
def test_the_servers_own_limit_ends_a_call_even_while_a_model_run_hangs(start, timeout):
    running = start(max_request_seconds=0.2)
    with running.held_engine():
        failure = failure_of(running.translation.Translate, REQUEST, timeout=timeout)
        assert failure.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert failure.details() == "the call took more than 0.2 seconds"
        running.wait_for_queued(0)
    wait_until(lambda: num_dropped(running, "expired") == 1)


@pytest.mark.parametrize("jump_seconds", [1e6, -1e6])
def test_a_jump_of_the_clock_of_the_system_changes_no_deadline_and_no_quota(
    start, monkeypatch, jump_seconds
):
    running = start(caller_max_texts_per_minute=2)
    now = time.time
    with running.held_engine():
        calls = [running.translation.Translate.future(REQUEST, timeout=60) for _ in range(2)]
        running.wait_for_queued(2)
        monkeypatch.setattr(time, "time", lambda: now() + jump_seconds)
    for call in calls:
        assert call.result().translations[0].hypotheses
    refusal = failure_of(running.translation.Translate, REQUEST)
    assert refusal.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max_texts_per_minute" in refusal.details()
