"""The standard health service, grpc.health.v1.

It replaces the one of grpcio-health-checking for two reasons. It can end its Watch calls, which
would otherwise delay the stop of the server. And when one watcher of a name leaves, the other
watchers still get updates.
"""

import asyncio
from collections.abc import Collection, Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attendant_server.grpc.context import Context

Status = health_pb2.HealthCheckResponse

UNKNOWN: int = Status.SERVICE_UNKNOWN
SERVING: int = Status.SERVING
NOT_SERVING: int = Status.NOT_SERVING


class HealthService(health_pb2_grpc.HealthServicer):
    """The status of each service name; the empty name is the whole server."""

    def __init__(self, services: Sequence[str]) -> None:
        self._statuses: dict[str, int] = dict.fromkeys(services, NOT_SERVING)
        self._changed = asyncio.Condition()
        self._is_final = False
        self._is_closed = False

    async def report(self, serving: Collection[str]) -> None:
        """Report SERVING for some services and NOT_SERVING for the others.

        A server that is stopping stays NOT_SERVING.
        """
        if not self._is_final:
            self._statuses = {
                service: SERVING if service in serving else NOT_SERVING
                for service in self._statuses
            }
        await self._notify()

    def is_serving(self, service: str) -> bool:
        """Whether the present status of a service is SERVING."""
        return self._statuses.get(service) == SERVING

    async def stop_serving(self) -> None:
        """Report NOT_SERVING for all services from now on."""
        self._statuses = dict.fromkeys(self._statuses, NOT_SERVING)
        self._is_final = True
        await self._notify()

    async def close(self) -> None:
        """End all Watch calls."""
        self._is_closed = True
        await self._notify()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """The present status; NOT_FOUND for an unknown name."""
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return Status(status=self._statuses[request.service])

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """The present status, and each later change."""
        sent = None
        while (status := await self._next(request.service, sent)) != sent:
            await context.write(Status(status=status))
            sent = status

    async def _next(self, service: str, sent: int | None) -> int:
        """Wait until the status differs from ``sent`` or the server stops."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._is_closed or self._statuses.get(service, UNKNOWN) != sent
            )
            return self._statuses.get(service, UNKNOWN)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
