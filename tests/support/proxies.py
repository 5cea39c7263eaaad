"""The shipped configurations of proxies for tests, run on this machine's ports and certificates."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.servers import free_ports
from tests.support.credentials import Authority
from tests.support.monitoring import ROOT
from tests.support.serving import wait_until

HAPROXY = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
ENVOY = ROOT / "deploy" / "envoy" / "envoy.yaml"
SERVER_NAME = "attendant.internal"
"""The name in the certificates of servers that the configurations ask for."""
POOL = "attendant"
"""The backend, or cluster, of all models without servers of their own."""


@dataclass(frozen=True)
class Ports:
    """The ports of a server behind a proxy."""

    calls: int
    health: int


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    target: str
    """What clients connect to, with TLS by the authority's certificate."""
    process: "subprocess.Popen[bytes]"
    log: Path
    status_port: int
    """The port of its own metrics."""


Pools = Mapping[str, Sequence[Ports]]
"""The servers of each pool. The name is that of a model, or `POOL`."""
Write = Callable[[Path, Pools, int, int], list[str]]
"""Writes the configuration into a folder that has the certificates; returns the command. The last
two are the ports of calls and of the proxy's own metrics."""


@contextmanager
def running_proxy(
    write: Write, folder: Path, authority: Authority, pools: Pools
) -> Iterator[Proxy]:
    """A proxy in front of servers, ready when the block begins."""
    tls = folder / "tls"
    tls.mkdir(parents=True)
    front = authority.issue("front", folder=tls)
    (tls / "front.pem").write_bytes(front.cert.read_bytes() + front.key.read_bytes())
    shutil.copy(authority.file, tls / "ca.pem")
    port, status_port = free_ports(2)
    command = write(folder, pools, port, status_port)
    log = folder / "log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as ran:
        try:
            wait_until(lambda: ran.poll() is not None or is_open(port))
            assert ran.poll() is None, log.read_text()
            yield Proxy(f"localhost:{port}", ran, log, status_port)
        finally:
            ran.kill()


def haproxy(folder: Path, pools: Pools, port: int, status_port: int) -> list[str]:
    """HAProxy with ``deploy/haproxy/haproxy.cfg``."""
    program = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        pytest.skip("NOT CHECKED: haproxy is not installed")
    text = HAPROXY.read_text().replace("/etc/haproxy", str(folder))
    text = text.replace("bind :50051", f"bind 127.0.0.1:{port}")
    text = text.replace("bind :8405", f"bind 127.0.0.1:{status_port}")
    text = re.sub(r"^ *server server-\d.*\n", "", text, flags=re.MULTILINE)
    lines = {pool: "".join(map(_haproxy_server, servers)) for pool, servers in pools.items()}
    text = text.replace(f"\nbackend {POOL}\n", f"\nbackend {POOL}\n{lines.pop(POOL)}")
    text += "".join(f"\nbackend {POOL}-{model}\n{servers}" for model, servers in lines.items())
    (folder / "models.map").write_text("".join(f"{model} {POOL}-{model}\n" for model in lines))
    (folder / "haproxy.cfg").write_text(text)
    return [program, "-f", str(folder / "haproxy.cfg")]


def envoy(folder: Path, pools: Pools, port: int, status_port: int) -> list[str]:
    """Envoy with ``deploy/envoy/envoy.yaml``; the variable ENVOY names the program."""
    program = os.environ.get("ENVOY") or shutil.which("envoy")
    if program is None or not Path(program).exists():
        pytest.skip("NOT CHECKED: envoy is not installed")
    config = yaml.safe_load(ENVOY.read_text().replace("/etc/envoy", str(folder)))
    config["admin"]["address"]["socket_address"]["port_value"] = status_port
    resources = config["static_resources"]
    listener = resources["listeners"][0]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    [cluster] = resources["clusters"]
    resources["clusters"] = [_envoy_cluster(cluster, *pool) for pool in pools.items()]
    for model in pools.keys() - {POOL}:
        routes.insert(-1, _envoy_route(model))
    (folder / "envoy.yaml").write_text(yaml.safe_dump(config))
    return [program, "-c", str(folder / "envoy.yaml"), "--use-dynamic-base-id", "-l", "warning"]


def is_open(port: int) -> bool:
    """Whether a port of this machine accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _haproxy_server(ports: Ports) -> str:
    address = f"127.0.0.1:{ports.calls}"
    return f"    server server-{ports.calls} {address} check port {ports.health}\n"


def _envoy_cluster(cluster: Any, pool: str, servers: Sequence[Ports]) -> Any:
    found = deepcopy(cluster)
    found["name"] = found["load_assignment"]["cluster_name"] = _cluster_name(pool)
    found["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {
            "endpoint": {
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": each.calls}},
                "health_check_config": {"port_value": each.health},
            }
        }
        for each in servers
    ]
    return found


def _envoy_route(model: str) -> Any:
    """The route that the configuration shows in a comment, for another model."""
    lines = re.findall(r"^ {24}# ((?:- |  +).*)$", ENVOY.read_text(), re.MULTILINE)
    [route] = yaml.safe_load("\n".join(lines).replace("large", model))
    return route


def _cluster_name(pool: str) -> str:
    return pool if pool == POOL else f"{POOL}-{pool}"
