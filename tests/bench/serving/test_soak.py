"""The soak finds no fault in the server, and finds a leak that was planted."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

from bench.servers import RunningServer, free_ports, running_program
from bench.serving.soak import soak
from bench.serving.soak_judgement import MAX_GROWTH_BYTES, Soak
from tests.support.application import TINY_BUNDLES
from tests.support.processes import MODULE

SECONDS = 8.0
LEAKING = """
import sys
from collections import Counter
from attendant_server.__main__ import main
from attendant_server.grpc.services.translation import TranslationService

translate, kept = TranslationService.Translate, []

async def translate_and_keep(self, request, context):
    kept.append(bytearray(b"x") * 2_000_000)
    return await translate(self, request, context)

TranslationService.Translate = translate_and_keep
sys.exit(main())
"""
MAX_SHORT_GROWTH_BYTES = 100_000_000
"""A server takes some memory in its first seconds of load."""


def soaked(program: Sequence[str]) -> Soak:
    port, metrics_port = free_ports(2)
    command = [sys.executable, *program, "--bundles", str(TINY_BUNDLES), "--num-threads", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--metrics-port", str(metrics_port)]
    command += ["--lame-duck-seconds", "0", "--log-level", "warning"]
    with running_program(command) as pid:
        metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        server = RunningServer(f"127.0.0.1:{port}", metrics_url, pid)
        found, _ = asyncio.run(soak(server, SECONDS))
    return found


def test_a_short_soak_finds_no_fault():
    found = soaked(MODULE)
    assert found.calls["answered"] > 0
    assert found.faults(MAX_SHORT_GROWTH_BYTES) == []


def test_a_planted_leak_is_found():
    found = soaked(("-c", LEAKING))
    faults = found.faults(MAX_SHORT_GROWTH_BYTES)
    assert [fault for fault in faults if fault.startswith("memory grew")]


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"threads": (5, 20)}, "threads: 5 before, 20 after"),
        ({"gauges": {"attendant_rows_used": 1.0}}, "attendant_rows_used is 1.0"),
        ({"calls": Counter(answered=98, late=2)}, "2 late"),
        ({"calls": Counter(answered=99, lost=1)}, "1 lost"),
        ({"memory": [(i, i * MAX_GROWTH_BYTES) for i in range(9)]}, "memory grew by 140 MB"),
    ],
)
def test_faults_are_named(changed, fault):
    assert Soak(**{"memory": [(0.0, 1), (1.0, 1)], **changed}).faults() == [fault]


def test_a_hundredth_of_the_calls_may_be_late():
    calls = Counter(answered=99, late=1)
    assert not Soak(calls=calls, memory=[(0.0, 1), (1.0, 1)]).faults()
