"""The shipped configurations of HAProxy and Envoy in front of real servers with TLS."""

import asyncio
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from attendant_client import AsyncClient, Client, NotFoundError

from bench.servers import ONE_OF_EACH_KIND, free_ports
from tests.support import http2
from tests.support.credentials import Authority
from tests.support.load import Load, read_on
from tests.support.monitoring import ROOT
from tests.support.processes import line_of, port_of, server_process
from tests.support.proxies import (
    HAPROXY,
    POOL,
    SERVER_NAME,
    Ports,
    Write,
    envoy,
    haproxy,
    running_proxy,
)
from tests.support.serving import TIMEOUT_SECONDS

BUNDLES = ROOT / "bundles"
NUM_ANSWERS = 20
Process = subprocess.Popen[str]


@pytest.fixture(params=[haproxy, envoy])
def write(request: pytest.FixtureRequest) -> Write:
    return request.param


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    authority.issue("server", hosts=(SERVER_NAME,))
    return authority


@contextmanager
def server(authority: Authority, ports: Ports, models: str = ONE_OF_EACH_KIND) -> Iterator[Process]:
    """A serving server with TLS on these ports."""
    folder = authority.file.parent
    numbers = ["--port", str(ports.calls), "--health-port", str(ports.health)]
    files = ["--tls-cert", f"{folder}/server.crt", "--tls-key", f"{folder}/server.key"]
    with server_process(BUNDLES, *numbers, *files, models) as process:
        assert port_of(process) == ports.calls
        yield process


def ports_of(num_servers: int) -> list[Ports]:
    return [Ports(*free_ports(2)) for _ in range(num_servers)]


async def disturb(connect: Callable[[], AsyncClient], start: Callable[[int], Process]) -> Load:
    """Stop, restart, kill and suspend one of three servers each while clients call."""
    first, second, third = (start(number) for number in range(3))
    for process in (first, second, third):
        read_on(process)
    async with connect() as client:
        load = Load(client)
        async with load.running("translate", "embed", "stream"):
            await load.answers_of_each(NUM_ANSWERS)
            first.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(first.wait, TIMEOUT_SECONDS) == 0
            await load.answers_of_each(NUM_ANSWERS)
        async with load.running("translate", "embed"):
            restarted = await asyncio.to_thread(start, 0)
            await asyncio.to_thread(line_of, "call", restarted)
            read_on(restarted)
            second.kill()
            await load.answers_of_each(NUM_ANSWERS)
            third.send_signal(signal.SIGSTOP)
            await load.answers_of_each(NUM_ANSWERS)
    return load


@pytest.mark.proxies
def test_no_call_fails_when_servers_behind_a_proxy_stop_or_are_killed_or_hang(
    write: Write, authority: Authority, tmp_path: Path
):
    ports = ports_of(3)
    with ExitStack() as stack:
        proxy = stack.enter_context(running_proxy(write, tmp_path, authority, {POOL: ports}))

        def connect() -> AsyncClient:
            return AsyncClient(proxy.target, tls_ca=authority.file, timeout_seconds=60)

        def start(number: int) -> Process:
            return stack.enter_context(server(authority, ports[number]))

        assert asyncio.run(disturb(connect, start)).errors == []


@pytest.mark.proxies
def test_a_model_that_only_one_server_holds_is_found_by_its_name(
    write: Write, authority: Authority, tmp_path: Path
):
    [most, one] = ports_of(2)
    pools = {POOL: [most], "bert-en-de": [one]}
    with (
        server(authority, most, "--models=en-de"),
        server(authority, one, "--models=bert-en-de"),
        running_proxy(write, tmp_path, authority, pools) as proxy,
        Client(proxy.target, tls_ca=authority.file) as client,
    ):
        version = client.embed("A dog.", model="bert-en-de").call.model
        assert client.embed("A dog.", model=version).call.model == version
        assert client.translate("A dog.").call.model.startswith("en-de/")
        with pytest.raises(NotFoundError):
            client.embed("A dog.")


def test_the_health_check_of_haproxy_is_a_call_in_http2():
    headers = http2.headers_of_call("/grpc.health.v1.Health/Check")
    block = b"".join(map(http2.literal, headers))
    expected = http2.PREFACE + http2.frame(http2.SETTINGS) + http2.header_frames(block, 1)
    expected += http2.frame(http2.DATA, bytes(5), http2.END_STREAM, 1)
    [sent] = re.findall(r"send-binary (\w+)", HAPROXY.read_text())
    assert bytes.fromhex(sent) == expected
