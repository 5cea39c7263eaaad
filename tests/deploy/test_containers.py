"""docker-compose.yml in podman: the properties of the server's container and of Prometheus."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from attendant_client import Client
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.servers import free_ports
from tests.support import kubernetes
from tests.support.containers import Podman, Stack, podman_with, running_stack
from tests.support.monitoring import ROOT, Prometheus, rules
from tests.support.serving import wait_until

pytestmark = pytest.mark.podman

IMAGE = "localhost/attendant:tested"
# Builds may need the host's network and certificates where their own network is blocked or proxied.
BUILD = ("--network", "host", "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro")
ANIMALS = ("dog", "cat", "horse", "cow", "bird", "fish", "mouse", "child")
TEXTS = [f"My {animal} has {n} red apples." for n in range(2, 34) for animal in ANIMALS]
LOOK_AROUND = """
import os
print(os.getuid(), open("/proc/1/status").read())
for path in ("/new", "/attendant/new", "/venv/new"):
    try:
        open(path, "w")
        print("could write", path)
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory) -> Podman:
    """podman with the built server image, whose size is printed."""
    [real] = re.findall(r"PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text())
    folder = tmp_path_factory.mktemp("podman")
    podman, python = podman_with(lambda podman: podman.image(real, "python"), folder)
    argument = f"PYTHON_IMAGE={python}"
    podman(
        *("build", "--format", "docker", "--pull=never", *BUILD),
        *("--build-arg", argument, "--tag", IMAGE, str(ROOT)),
    )
    sizes = [podman.size_of(image) / 1e6 for image in (IMAGE, python)]
    print(f"\nimage: {sizes[0]:.0f} MB, of which {sizes[1]:.0f} MB are {python}")
    return podman


@pytest.fixture(scope="module")
def stack(podman, tmp_path_factory) -> Iterator[Stack]:
    """The server and Prometheus, serving."""
    [real] = re.findall(r"image: (\S+/prometheus:\S+)", (ROOT / "docker-compose.yml").read_text())
    images = {"server": IMAGE, "prometheus": podman.image(real, "prometheus")}
    with running_stack(podman, tmp_path_factory.mktemp("attendant-stack"), images) as stack:
        wait_until(lambda: health(stack) == "SERVING")
        yield stack


def health(stack: Stack) -> str:
    """The server's answer to a health check, empty without an answer."""
    return health_at(stack.address)


def health_at(address: str) -> str:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return ""
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def test_the_server_answers_over_the_published_port(stack: Stack):
    with Client(stack.address) as client:
        assert client.translate("The dog is here.", model="en-de").text
        assert client.embed(["The dog is here."]).vectors.shape == (1, 256)


def test_the_server_runs_without_root_capabilities_or_a_place_to_write(stack: Stack):
    seen = stack.podman("exec", stack.container("server"), "python", "-c", LOOK_AROUND)
    assert seen.startswith("10001 ")
    status = dict(re.findall(r"^(\w+):\s+(\S+)", seen, re.MULTILINE))
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capabilities], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert "could write" not in seen
    assert seen.count("Read-only file system") == 3


def test_the_health_checks_of_both_images_pass(stack: Stack):
    for service in ("server", "prometheus"):
        stack.podman("healthcheck", "run", stack.container(service))


def test_prometheus_scrapes_the_server_by_its_name_and_evaluates_the_rules(stack: Stack):
    prometheus = Prometheus(f"http://127.0.0.1:{stack.ports[9090]}")
    wait_until(lambda: prometheus.numbers('up{job="attendant", instance="server:9464"}') == [1.0])
    evaluated = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    wait_until(lambda: prometheus.numbers("instance:attendant_memory:ratio") != [])
    [limit] = prometheus.numbers("attendant_memory_limit_bytes")
    assert limit == 6 * 2**30


def test_stopping_ends_the_calls_in_flight_first(stack: Stack):
    with Client(stack.address, timeout_seconds=240) as client, ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(client.translate, TEXTS, model="en-de", beam_size=4) for _ in range(2)]
        wait_until(lambda: stack.metric("attendant_active_sentences") > 0)
        stopping = pool.submit(stack.podman.compose, stack.folder, "stop", "server")
        wait_until(lambda: health(stack) != "SERVING")
        assert not any(call.done() for call in calls)
        for call in calls:
            assert len([result for result in call.result() if result.text]) == len(TEXTS)
        stopping.result()
    assert stack.inspect("server")["State"]["ExitCode"] == 0


def test_a_stopped_server_starts_again_and_says_how_long_that_takes(stack: Stack):
    start = time.monotonic()
    stack.podman("start", stack.container("server"))
    wait_until(lambda: health(stack) == "SERVING")
    print(f"\nfrom `podman start` to SERVING: {time.monotonic() - start:.1f} s")


def container_of_a_pod(ports: dict[str, int]) -> list[str]:
    """The arguments of podman for the container in the manifests, and what its pod may not do."""
    variables = kubernetes.injected("attendant", kubernetes.SERVICES["attendant"])
    variables |= {"ATTENDANT_METRICS_PORT": "tcp://10.96.0.8:9464"} | kubernetes.VARIABLES
    user = kubernetes.POD["securityContext"]["runAsUser"]
    flags = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", f"--user={user}"]
    flags += [f"--tmpfs={each['mountPath']}" for each in kubernetes.CONTAINER["volumeMounts"]]
    flags += [f"--publish=127.0.0.1:{ports[name]}:{kubernetes.PORTS[name]}" for name in ports]
    return [*flags, *(f"--env={name}={value}" for name, value in variables.items())]


def test_a_pods_container_heeds_its_quota_beside_variables_of_services_and_stops(podman):
    ports = dict(zip(("grpc", "health"), free_ports(2), strict=True))
    grace = str(kubernetes.POD["terminationGracePeriodSeconds"])
    name = f"attendant-pod-{ports['grpc']}"
    podman("run", "--detach", f"--name={name}", "--cpus=1", *container_of_a_pod(ports), IMAGE)
    try:
        wait_until(lambda: health_at(f"127.0.0.1:{ports['health']}") == "SERVING")
        with Client(f"127.0.0.1:{ports['grpc']}") as client:
            assert client.translate("The dog is here.", model="en-de").text
        started = json.loads(podman.logs(name).splitlines()[0])
        assert (started["event"], started["threads"], started["workers"]) == ("starting", 1, 1)
        podman("stop", f"--time={grace}", name)
        [found] = json.loads(podman("inspect", name))
        assert found["State"]["ExitCode"] == 0
    finally:
        podman("rm", "--force", name)
