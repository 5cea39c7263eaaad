import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.health_probe import address_of
from tests.support.monitoring import ROOT
from tests.support.processes import port_of, server_process
from tests.support.serving import TIMEOUT_SECONDS


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "127.0.0.1:50051"),
        ({"ATTENDANT_PORT": "7"}, "127.0.0.1:7"),
        ({"ATTENDANT_PORT": "tcp://10.0.0.1:7"}, "127.0.0.1:50051"),
        ({"ATTENDANT_HOST": "10.0.0.1"}, "10.0.0.1:50051"),
        ({"ATTENDANT_HOST": "::"}, "[::1]:50051"),
        ({"ATTENDANT_HOST": "[::]"}, "[::1]:50051"),
        ({"ATTENDANT_HOST": "fd00::7", "ATTENDANT_PORT": "8"}, "[fd00::7]:8"),
        ({"ATTENDANT_HOST": "[fd00::7]"}, "[fd00::7]:50051"),
        ({"ATTENDANT_HOST": "unix:/run/a.sock", "ATTENDANT_PORT": "8"}, "unix:/run/a.sock"),
        ({"ATTENDANT_PORT": "7", "ATTENDANT_HEALTH_PORT": "9"}, "127.0.0.1:9"),
        ({"ATTENDANT_HOST": "unix:/run/a.sock", "ATTENDANT_HEALTH_PORT": "9"}, "127.0.0.1:9"),
        ({"ATTENDANT_METRICS_HOST": "::", "ATTENDANT_HEALTH_PORT": "9"}, "[::1]:9"),
        ({"ATTENDANT_HEALTH_PORT": "-1"}, "127.0.0.1:50051"),
        ({"ATTENDANT_HEALTH_PORT": "tcp://10.0.0.1:7"}, "127.0.0.1:50051"),
    ],
)
def test_the_probe_asks_where_the_variables_let_the_server_listen(variables, expected):
    assert address_of(variables) == expected


def exit_code_of_probe(**variables: str) -> int:
    command = [sys.executable, str(ROOT / "deploy" / "health_probe.py")]
    environment = os.environ | variables
    return subprocess.run(command, env=environment, timeout=TIMEOUT_SECONDS).returncode


def test_the_probe_finds_a_server_that_serves_whatever_proxy_is_set(embedding_bundle: Path):
    with server_process(embedding_bundle.parents[1]) as process:
        port = str(port_of(process))
        assert exit_code_of_probe(ATTENDANT_PORT=port) == 0
        assert exit_code_of_probe(ATTENDANT_PORT=port, http_proxy="http://127.0.0.1:9") == 0
    assert exit_code_of_probe(ATTENDANT_PORT=port) == 1
