from typing import Any

import grpc
import pytest
from attendant.v1 import embedding_pb2
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_server.engine.work_flow import Rates, WorkFlow
from google.rpc import error_details_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from tests.support.serving import failure_of

ONE = TranslateRequest(texts=["The dog sees the king."])
FOUR = TranslateRequest(texts=["The dog sees the king."] * 4)


def refusal(call: Any, request: Any) -> Any:
    failure = failure_of(call, request, timeout=60)
    assert failure.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    return failure


def test_a_call_that_does_not_fit_the_queue_is_refused_at_once_with_a_time_to_retry(start):
    running = start(max_queued_texts=4, max_texts=4)
    with running.held_engine():
        waiting = running.translation.Translate.future(FOUR)
        running.wait_for_queued(4)
        error = refusal(running.translation.Translate, ONE)
        retry = error_details_pb2.RetryInfo()
        [detail] = rpc_status.from_call(error).details
        assert detail.Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() >= 50
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) >= 50
        assert running.metric("attendant_refused_calls_total", reason="queue_full") == 1
    assert all(t.hypotheses for t in waiting.result().translations)
    assert running.translation.Translate(ONE).translations[0].hypotheses


@pytest.fixture
def slow_model(monkeypatch):
    """A measured rate of a token in ten seconds, whatever the speed of this machine is."""
    monkeypatch.setattr(WorkFlow, "rates", lambda *_: Rates(leaving=0.1, load=0.0))


def test_a_call_that_would_wait_too_long_is_refused_at_once_with_a_time_to_retry(start, slow_model):
    running = start(max_queued_texts=100, max_texts=4, max_request_seconds=60)
    with running.held_engine():
        waiting = running.translation.Translate.future(FOUR)
        running.wait_for_queued(4)
        error = refusal(running.translation.Translate, FOUR)
        assert "is too long: at most " in error.details()
        assert "until the call's deadline, which max_request_seconds limits" in error.details()
        retry = error_details_pb2.RetryInfo()
        [detail] = rpc_status.from_call(error).details
        assert detail.Unpack(retry)
        assert retry.retry_delay.ToSeconds() > 0
        assert running.metric("attendant_refused_calls_total", reason="queue_wait") == 1
        assert running.metric("attendant_refused_calls_total", reason="queue_full") == 0
    assert all(t.hypotheses for t in waiting.result().translations)
    assert running.translation.Translate(ONE).translations[0].hypotheses


def test_a_call_without_a_queue_before_it_is_not_refused_however_slow_the_model_is(
    start, slow_model
):
    running = start(max_texts=4)
    assert all(t.hypotheses for t in running.translation.Translate(FOUR).translations)


def test_all_texts_of_a_call_are_admitted_or_none(start):
    running = start(max_queued_texts=4, max_texts=4)
    with running.held_engine():
        waiting = running.translation.Translate.future(ONE)
        running.wait_for_queued(1)
        refusal(running.translation.Translate, FOUR)
        running.wait_for_queued(1)
    assert waiting.result().translations[0].hypotheses


def test_each_model_has_a_queue_of_its_own(start):
    running = start(max_queued_texts=4, max_texts=4)
    with running.held_engine():
        waiting = running.translation.Translate.future(FOUR)
        running.wait_for_queued(4)
        embedding = running.embedding.Embed.future(embedding_pb2.EmbedRequest(texts=["The dog."]))
        running.wait_for_queued(1, model="tiny-bert/1")
    assert not embedding.result().results[0].HasField("error")
    assert waiting.result().translations[0].hypotheses


def test_calls_beyond_the_number_in_progress_are_refused_but_health_is_told(start):
    running = start(max_concurrent_calls=1)
    with running.held_engine():
        waiting = running.translation.Translate.future(ONE)
        running.wait_for_queued(1)
        error = refusal(running.translation.Translate, ONE)
        assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())
        assert running.metric("attendant_refused_calls_total", reason="concurrency") == 1
        status = running.health.Check(HealthCheckRequest()).status
        assert status == HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        assert list(reflection.ServerReflectionInfo(iter([request])))
    assert waiting.result().translations[0].hypotheses
    assert running.translation.Translate(ONE).translations[0].hypotheses


def test_the_counts_of_a_server_at_rest_are_zero(start):
    running = start(max_queued_texts=8, max_texts=4)
    calls = [running.translation.Translate.future(FOUR) for _ in range(20)]
    codes = {call.code() for call in calls}
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    for gauge in ("attendant_queued_texts", "attendant_rows_used", "attendant_active_sentences"):
        assert running.metric(gauge) == 0
