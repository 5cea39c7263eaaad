"""The lines for docker compose in docs/security.md, run by the server without a container."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from attendant_client import Client, UnauthenticatedError, UnavailableError

from bench.servers import free_port
from deploy.health_probe import address_of, is_serving
from tests.support.application import TINY_BUNDLES
from tests.support.credentials import Authority
from tests.support.monitoring import ROOT
from tests.support.processes import server_process
from tests.support.serving import TIMEOUT_SECONDS

PODMAN = "#!/bin/sh\necho podman version 5.0.0\n"
"""podman-compose asks for a version, also if it only merges files."""


def merged_server(folder: Path) -> Any:
    """The service of docker-compose.yml with the lines of the page, as podman-compose reads it."""
    page = (ROOT / "docs" / "security.md").read_text()
    [lines] = re.findall(r"```yaml\n( {4}environment:\n.*?)```", page, re.DOTALL)
    more, podman = folder / "more.yml", folder / "podman"
    more.write_text(f"services:\n  server:\n{lines}")
    podman.write_text(PODMAN)
    podman.chmod(0o700)
    command = [sys.executable, "-m", "podman_compose", "--podman-path", str(podman)]
    command += ["-f", str(ROOT / "docker-compose.yml"), "-f", str(more), "config"]
    shown = subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)
    return yaml.safe_load(shown.stdout)["services"]["server"]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder with the files that the lines name."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    Authority(folder).issue("server")
    return folder


def new_key(file: Path) -> str:
    """Write an API key as the page says; returns the key."""
    command = [sys.executable, "-m", "attendant_server", "--new-api-key", "search"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    file.write_text(shown[shown.index("[[keys]]") :])
    file.chmod(0o600)
    [key] = re.findall(r"^attendant_\S+$", shown, re.MULTILINE)
    return str(key)


def serving_line(process: "subprocess.Popen[str]") -> Any:
    """The line of the log, as JSON, with which the server says that it is serving."""
    assert process.stderr is not None
    return next(line for line in map(json.loads, process.stderr) if line["event"] == "serving")


def test_the_lines_for_compose_give_a_server_with_tls_keys_and_probes(
    tmp_path: Path, secrets: Path
):
    server = merged_server(tmp_path)
    assert server["volumes"] == ["./secrets:/secrets:ro"]
    variables = {
        name: value.replace("/secrets", str(secrets))
        for name, value in server["environment"].items()
    }
    key = new_key(secrets / "keys.toml")
    assert variables["ATTENDANT_HEALTH_PORT"] == "50052"
    variables["ATTENDANT_HEALTH_PORT"] = str(free_port())
    variables["ATTENDANT_METRICS_HOST"] = "127.0.0.1"
    with server_process(TINY_BUNDLES, variables=variables) as process:
        line = serving_line(process)
        port, metrics = (line[name].rpartition(":")[2] for name in ("address", "metrics_address"))
        target, authority = f"grpcs://localhost:{port}", str(secrets / "authority.pem")
        with Client(target, tls_ca=authority, token=key) as client:
            assert {model.name for model in client.models()} >= {"tiny-en-de", "tiny-bert"}
        with Client(target, tls_ca=authority) as client, pytest.raises(UnauthenticatedError):
            client.models()
        with (
            Client(f"localhost:{port}", timeout_seconds=5) as client,
            pytest.raises(UnavailableError),
        ):
            client.models()
        page = urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=60).read()
        assert b"attendant_serving 1.0" in page
        assert is_serving(address_of(variables))
