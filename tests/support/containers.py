"""The stack of docker-compose.yml for tests, built and run by podman on free ports."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.servers import free_ports
from tests.support.monitoring import ROOT, tool
from tests.support.serving import TIMEOUT_SECONDS, sum_of_metric

BUILD_SECONDS = 1800
STAND_INS = "localhost/attendant-stand-in"
RUNC = """\
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=10000:10000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""For machines that can neither raise limits nor use control groups of version 2."""


@dataclass(frozen=True)
class Podman:
    """podman with a configuration and an environment in which it can run containers."""

    environment: dict[str, str]

    def __call__(self, *arguments: str, timeout: float = BUILD_SECONDS) -> str:
        """The output of a podman command. Fails with its error message."""
        return self._run([tool("podman"), *arguments], timeout).stdout

    def compose(self, folder: Path, *arguments: str) -> str:
        """The output of a podman-compose command on ``folder/docker-compose.yml``."""
        command = [sys.executable, "-m", "podman_compose", "-f", str(folder / "docker-compose.yml")]
        return self._run([*command, *arguments], BUILD_SECONDS).stdout

    def has(self, image: str) -> bool:
        """Whether an image exists or can be pulled."""
        try:
            self("image", "exists", image)
        except AssertionError:
            try:
                self("pull", "--quiet", image, timeout=120)
            except (AssertionError, subprocess.TimeoutExpired):
                return False
        return True

    def image(self, real: str, stand_in: str) -> str:
        """The real image, or its stand-in. Skips the test if neither is available."""
        for image in (real, f"{STAND_INS}/{stand_in}"):
            if self.has(image):
                return image
        pytest.skip(f"NOT CHECKED: {real} cannot be had; deploy/stand_ins.sh makes a stand-in")

    def logs(self, container: str) -> str:
        """What a container has written to its standard streams."""
        done = self._run([tool("podman"), "logs", container], BUILD_SECONDS)
        return done.stdout + done.stderr

    def size_of(self, image: str) -> int:
        """The size of an image in bytes, including its base."""
        return int(self("image", "inspect", "--format", "{{.Size}}", image))

    def _run(self, command: list[str], timeout: float) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done


def podman_with(image_of: Any, folder: Path) -> tuple[Podman, str]:
    """A podman that can run containers here, and the image that it was tested with."""
    (folder / "containers.conf").write_text(RUNC)
    own = dict(os.environ)
    complaints = []
    for environment in (own, own | {"CONTAINERS_CONF": str(folder / "containers.conf")}):
        podman = Podman(environment)
        image = image_of(podman)
        try:
            podman("run", "--rm", image, "true", timeout=120)
            return podman, image
        except AssertionError as error:
            complaints.append(str(error))
    pytest.skip(f"NOT CHECKED: podman cannot run containers here: {complaints}")


@dataclass(frozen=True)
class Stack:
    """The running server and Prometheus."""

    podman: Podman
    folder: Path
    ports: dict[int, int]
    """The host port of each published port."""

    @property
    def address(self) -> str:
        """The address of the server."""
        return f"127.0.0.1:{self.ports[50051]}"

    def metric(self, name: str) -> float:
        """The sum of all samples of a metric of the server."""
        url = f"http://127.0.0.1:{self.ports[9464]}/metrics"
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            return sum_of_metric(response.read().decode(), name)

    def container(self, service: str) -> str:
        """The id of the container of a service."""
        label = f"label=com.docker.compose.service={service}"
        project = f"label=com.docker.compose.project={self.folder.name}"
        return self.podman("ps", "--all", "--quiet", "--filter", label, "--filter", project).strip()

    def inspect(self, service: str) -> Any:
        """The output of ``podman inspect`` for the container of a service."""
        [found] = json.loads(self.podman("inspect", self.container(service)))
        return found


def derived(folder: Path, images: dict[str, str]) -> dict[int, int]:
    """Write a docker-compose.yml of the services in ``images`` on free ports; returns the ports."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    compose["services"] = {name: compose["services"][name] for name in images}
    del compose["volumes"]["grafana-data"]
    free = iter(free_ports(sum(len(s["ports"]) for s in compose["services"].values())))
    ports: dict[int, int] = {}
    for name, service in compose["services"].items():
        service["image"] = images[name]
        service["volumes"] = [v.replace("./", f"{ROOT}/") for v in service.get("volumes", [])]
        service.pop("build", None)
        inner = [int(port.rpartition(":")[2]) for port in service["ports"]]
        ports |= {port: next(free) for port in inner}
        service["ports"] = [f"127.0.0.1:{ports[port]}:{port}" for port in inner]
    # Enough time for all calls in flight, even on a slow machine.
    server = compose["services"]["server"]
    server["environment"] |= {"ATTENDANT_DRAIN_SECONDS": 240, "ATTENDANT_MAX_REQUEST_SECONDS": 240}
    server["stop_grace_period"] = "250s"
    (folder / "docker-compose.yml").write_text(yaml.safe_dump(compose))
    return ports


@contextmanager
def running_stack(podman: Podman, folder: Path, images: dict[str, str]) -> Iterator[Stack]:
    """The services of docker-compose.yml in ``images``, removed after the block."""
    ports = derived(folder, images)
    try:
        podman.compose(folder, "up", "--detach", "--no-build")
        yield Stack(podman, folder, ports)
    finally:
        podman.compose(folder, "down", "--volumes")
        shutil.rmtree(folder)
