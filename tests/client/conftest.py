"""A scripted server and clients connected to it."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from attendant_client import AsyncClient, Client, RetryPolicy
from attendant_client.__main__ import main

from tests.client.blocking import Blocking
from tests.client.script import Script
from tests.client.scripted_server import start_server

QUICK = RetryPolicy(max_attempts=3, initial_backoff_seconds=0.001, max_backoff_seconds=0.01)
SETTINGS: dict[str, Any] = {"retry": QUICK, "timeout_seconds": 10.0}


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def address(script: Script) -> Iterator[str]:
    server, address = start_server(script)
    yield address
    server.stop(None).wait()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield loop
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@pytest.fixture(params=[Client, AsyncClient])
def connect(
    request: pytest.FixtureRequest, address: str, loop: asyncio.AbstractEventLoop
) -> Iterator[Callable[..., Any]]:
    """Opens clients of either class through the interface of Client."""

    def connect(target: str = address, **settings: Any) -> Any:
        settings = SETTINGS | settings
        client = (
            Client(target, **settings)
            if request.param is Client
            else Blocking(loop, AsyncClient, target, **settings)
        )
        return clients.enter_context(client)

    with ExitStack() as clients:
        yield connect


@pytest.fixture
def client(connect: Callable[..., Any]) -> Any:
    return connect()


@pytest.fixture
def attendant(
    address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run the command against the server; return exit code, output and errors."""

    def run(*arguments: str, stdin: bytes = b"") -> Any:
        monkeypatch.setenv("ATTENDANT_TARGET", address)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(list(arguments))
        return code, *capsys.readouterr()

    return run
