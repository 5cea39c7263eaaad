"""The standard health service, grpc.health.v1.

It replaces the one of grpcio-health-checking for three reasons. It can end its Watch calls, which
would otherwise delay the stop of the server. When one watcher of a name leaves, the other watchers
still get updates. And it limits Watch calls, which no admission does.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attendant_server.grpc.context import Context

Status = health_pb2.HealthCheckResponse

UNKNOWN: int = Status.SERVICE_UNKNOWN
SERVING: int = Status.SERVING
NOT_SERVING: int = Status.NOT_SERVING

MAX_WATCHES = 1000
"""Watch calls beyond which each connection may have a few only; a proxy has many on one."""
MAX_FURTHER_WATCHES = 4
"""Watch calls of one connection that are taken beyond `MAX_WATCHES`."""


class HealthService(health_pb2_grpc.HealthServicer):
    """The status of each service name; the empty name is the whole server."""

    def __init__(self, services: Sequence[str]) -> None:
        self._statuses: dict[str, int] = dict.fromkeys(services, NOT_SERVING)
        self._changed = asyncio.Condition()
        self._watches: Counter[str] = Counter()
        """Watch calls of each connection."""
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
        """The present status, and each later change; RESOURCE_EXHAUSTED for too many watchers."""
        async with self._counted(context):
            sent = None
            while (status := await self._next(request.service, sent)) != sent:
                await context.write(Status(status=status))
                sent = status

    @asynccontextmanager
    async def _counted(self, context: Context) -> AsyncIterator[None]:
        peer, num_watches = context.peer(), self._watches.total()
        own = self._watches[peer]
        if num_watches >= MAX_WATCHES and own >= MAX_FURTHER_WATCHES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"there are {num_watches} Watch calls, and {own} of this connection",
            )
        self._watches[peer] += 1
        try:
            yield
        finally:
            self._watches[peer] -= 1
            if not self._watches[peer]:
                del self._watches[peer]

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
