"""Exits with 0 if the server in this container answers SERVING, and with 1 if not.

Knows only the standard grpc.health.v1 service. The server's image runs it as its HEALTHCHECK.
"""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 3.0


def is_serving(address: str) -> bool:
    """Ask `address` (host:port) for the health of the whole server."""
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    port = os.environ.get("ATTENDANT_PORT", "50051")
    sys.exit(0 if is_serving(f"127.0.0.1:{port}") else 1)
