"""A client of two servers: one stops and comes back, then the other is killed, all under load."""

import asyncio
import signal
from pathlib import Path

from attendant_client import AsyncClient

from tests.support.load import Load, read_on
from tests.support.processes import line_of, port_of, server_process
from tests.support.serving import TIMEOUT_SECONDS


async def stop_and_restart(bundles: Path) -> Load:
    with server_process(bundles) as first, server_process(bundles) as second:
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
            with server_process(bundles, "--port", str(ports[0])) as restarted:
                async with load.running("translate", "embed"):
                    await asyncio.to_thread(line_of, "call", restarted)
                    read_on(restarted)
                    await load.answers_of_each(50)
                    second.kill()
                    await load.answers_of_each(50)
    return load


def test_no_call_fails_when_one_of_two_servers_stops_or_comes_back_or_is_killed(bundles: Path):
    load = asyncio.run(stop_and_restart(bundles))
    assert load.errors == []
