"""A scripted server and clients of it."""

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from attendant_client import AsyncClient, Client, RetryPolicy

from tests.client.scripted_server import Script, start_server

QUICK = RetryPolicy(max_attempts=3, initial_backoff_seconds=0.001, max_backoff_seconds=0.01)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def address(script: Script) -> Iterator[str]:
    server, address = start_server(script)
    yield address
    server.stop(None).wait()


class Driver:
    """Calls one kind of client by the names of its methods, and waits for the results."""

    def __init__(self, kind: str, address: str, **settings: Any) -> None:
        self.kind = kind
        self._address = address
        self._settings: dict[str, Any] = {"retry": QUICK, "timeout_seconds": 10.0} | settings

    def with_settings(self, **settings: Any) -> "Driver":
        return Driver(self.kind, self._address, **settings)

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        if self.kind == "sync":
            with Client(self._address, **self._settings) as client:
                return getattr(client, method)(*arguments, **options)
        return asyncio.run(self._call(method, arguments, options))

    async def _call(self, method: str, arguments: Any, options: Any) -> Any:
        async with AsyncClient(self._address, **self._settings) as client:
            result = getattr(client, method)(*arguments, **options)
            return await result if inspect.isawaitable(result) else result

    def stream(self, text: str, num_pieces: int | None = None, **options: Any) -> Any:
        """Read pieces of a stream, all by default; return them and the stream, closed."""
        if self.kind == "async":
            return asyncio.run(self._stream(text, num_pieces, options))
        pieces: list[str] = []
        with (
            Client(self._address, **self._settings) as client,
            client.stream_translate(text, **options) as stream,
        ):
            while len(pieces) != num_pieces and (piece := next(stream, None)) is not None:
                pieces.append(piece)
        return pieces, stream

    async def _stream(self, text: str, num_pieces: int | None, options: Any) -> Any:
        pieces: list[str] = []
        async with (
            AsyncClient(self._address, **self._settings) as client,
            client.stream_translate(text, **options) as stream,
        ):
            while len(pieces) != num_pieces and (piece := await anext(stream, None)) is not None:
                pieces.append(piece)
        return pieces, stream


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, address: str) -> Driver:
    return Driver(request.param, address)
