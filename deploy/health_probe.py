"""Exits with 0 if the server in this container reports SERVING, otherwise with 1.

Knows only the standard grpc.health.v1 service. The server's image runs it as its HEALTHCHECK.
"""

import os
import sys
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 3.0
DEFAULT_PORT = "50051"
LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}
"""The loopback addresses for a server that listens on all addresses."""


def address_of(environment: Mapping[str, str]) -> str:
    """The address to probe, from the server's environment variables.

    With TLS, the server needs a port for health checks (ATTENDANT_HEALTH_PORT).
    """
    host = environment.get("ATTENDANT_HOST", "0.0.0.0")
    # Kubernetes sets such variables to tcp://... beside services named attendant and the like.
    ports = (environment.get(f"ATTENDANT_{name}", "") for name in ("HEALTH_PORT", "PORT"))
    health_port, port = ("" if "://" in port else port for port in ports)
    if health_port not in ("", "-1"):
        host, port = environment.get("ATTENDANT_METRICS_HOST", "0.0.0.0"), health_port
    elif host.startswith("unix:"):
        return host
    port = port or DEFAULT_PORT
    host = LOOPBACKS.get(host, host)
    return f"[{host}]:{port}" if ":" in host and host[0] != "[" else f"{host}:{port}"


def is_serving(address: str) -> bool:
    """Ask the server at `address` for the health of the whole server; never through a proxy."""
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(0 if is_serving(address_of(os.environ)) else 1)
