"""A server whose engine dies: callers and health are told, and it starts again or ends."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1 import translation_pb2_grpc
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_server.app import Server
from attendant_server.settings import Settings
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.support.processes import last_line, port_of, server_process
from tests.support.serving import TIMEOUT_SECONDS

REQUEST = TranslateRequest(texts=["The dog sees the king."] * 4)
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
DYING_ENGINE = """
import sys
from attendant_server import restarts
from attendant_server.__main__ import main
from attendant_server.engine.translation_scheduler import TranslationScheduler

advance, deaths = TranslationScheduler.advance, iter(range({num_deaths}))

def advance_or_die(self, is_alone):
    if next(deaths, None) is not None:
        sys.exit("the thread ends here")
    advance(self, is_alone)

TranslationScheduler.advance = advance_or_die
restarts.FIRST_DELAY_SECONDS = 0.01
sys.exit(main())
"""


def test_callers_and_health_are_told_of_a_death_and_the_models_are_loaded_again(bundles: Path):
    program = ("-c", DYING_ENGINE.format(num_deaths=1))
    with (
        server_process(bundles, "--num-workers", "1", program=program) as process,
        grpc.insecure_channel(f"127.0.0.1:{port_of(process)}") as channel,
    ):
        stub: Any = translation_pb2_grpc.TranslationServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        assert next(watch).status == SERVING
        calls = [stub.Translate.future(REQUEST, timeout=TIMEOUT_SECONDS) for _ in range(4)]
        assert {call.code() for call in calls} == {grpc.StatusCode.UNAVAILABLE}
        assert next(watch).status == NOT_SERVING
        assert next(watch).status == SERVING
        assert stub.Translate(REQUEST).translations[3].hypotheses


def test_a_server_that_stops_does_not_restart_its_engine(settings: Callable[..., Settings]):
    async def scenario() -> None:
        async with Server(settings()) as server:
            assert server.engine is not None
            assert server.engine.on_death is not None
            server.engine.abandon()
            server.engine.on_death()
            restart = server.supervisor._restarting
        assert restart is not None
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wrap_future(restart)
        assert server.engine is None

    asyncio.run(scenario())


def test_a_server_whose_engine_keeps_dying_ends(bundles: Path):
    program = ("-c", DYING_ENGINE.format(num_deaths=100))
    with server_process(
        bundles, "--num-workers", "1", "--lame-duck-seconds", "0", program=program
    ) as process:
        with grpc.insecure_channel(f"127.0.0.1:{port_of(process)}") as channel:
            stub: Any = translation_pb2_grpc.TranslationServiceStub(channel)
            health: Any = health_pb2_grpc.HealthStub(channel)
            statuses = []
            for answer in health.Watch(HealthCheckRequest(), timeout=TIMEOUT_SECONDS):
                statuses.append(answer.status)
                if answer.status == SERVING:
                    call = stub.Translate.future(REQUEST, timeout=TIMEOUT_SECONDS)
                    assert call.code() == grpc.StatusCode.UNAVAILABLE
        assert statuses == [SERVING, NOT_SERVING] * 5
        assert process.wait(TIMEOUT_SECONDS) == 1
        assert "event=stopped" in last_line(process)
