"""A client of two servers: one stops and comes back, the other hangs and is killed, under load."""

import asyncio
import signal
from pathlib import Path

import pytest
from attendant_client import AsyncClient, connection

from tests.support.load import Load, read_on
from tests.support.processes import line_of, port_of, server_process
from tests.support.serving import TIMEOUT_SECONDS


async def stop_and_restart(bundles: Path) -> Load:
    any_pings = ("--min-ping-seconds", "0")
    with (
        server_process(bundles, *any_pings) as first,
        server_process(bundles, *any_pings) as second,
    ):
        ports = port_of(first), port_of(second)
        read_on(first)
        read_on(second)
        async with AsyncClient(",".join(f"127.0.0.1:{port}" for port in ports)) as client:
            load = Load(client)
            async with load.running("translate", "embed", "stream"):
                await load.answers_of_each(50)
                first.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(first.wait, TIMEOUT_SECONDS) == 0
                await load.answers_of_each(50)
            with server_process(bundles, "--port", str(ports[0]), *any_pings) as restarted:
                async with load.running("translate", "embed"):
                    await asyncio.to_thread(line_of, "call", restarted)
                    read_on(restarted)
                    await load.answers_of_each(50)
                    second.send_signal(signal.SIGSTOP)
                    await load.answers_of_each(50)
                # Here all calls have ended, those that the hanging server had at the other one.
                async with load.running("translate", "embed"):
                    second.send_signal(signal.SIGCONT)
                    await load.answers_of_each(50)
                    second.kill()
                    await load.answers_of_each(50)
    return load


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings of clients, and the wait for their answers, ten times as fast as by default."""
    options = {
        name: int(value) // 10 if "keepalive" in name or "ping" in name else value
        for name, value in connection.CHANNEL_OPTIONS
    }
    monkeypatch.setattr(connection, "CHANNEL_OPTIONS", tuple(options.items()))


@pytest.mark.usefixtures("quick_pings")
def test_no_call_fails_when_one_of_two_servers_stops_or_hangs_or_is_killed(bundles: Path):
    load = asyncio.run(stop_and_restart(bundles))
    assert load.errors == []
