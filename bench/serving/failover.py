"""Calls and latency while one of three servers stops, dies or hangs, and while all are restarted.

    python -m bench.serving.failover --data-dir DATA_DIR --rate 20

Translates one text in each call, at random times, through our client: with its own balancing over
the three servers, and through HAProxy and Envoy with the configurations in ``deploy/`` (with TLS).
Prints for each event the calls sent, answered and failed, and the p99 before, during and after it.
"""

import argparse
import asyncio
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attendant_client import AsyncClient, CallError

from bench.arguments import bench_parser, some_of
from bench.loads import LoadResult, Refused, poisson
from bench.reporting import report, table
from bench.servers import free_ports
from bench.texts import sample_texts
from tests.support.credentials import Authority
from tests.support.load import serving_process
from tests.support.proxies import POOL, SERVER_NAME, Ports, envoy, haproxy, running_proxy

NUM_SERVERS = 3
MODEL = "en-de"
PROXIES = {"haproxy": haproxy, "envoy": envoy}
SYSTEMS = ("client", *PROXIES)
EVENTS = ("TERM", "KILL", "STOP", "rolling")
LOAD_SECONDS = 2.0
SETTLE_SECONDS = 3.0
"""Until proxies have seen all servers."""
TIMEOUT_SECONDS = 30.0
SUSPENDED_SECONDS = 40.0
"""How long a server hangs: longer than the deadline of a call."""


class Fleet:
    """Three servers on fixed ports, which can be stopped and started."""

    def __init__(self, stack: ExitStack, flags: Sequence[str]) -> None:
        self._stack, self._flags = stack, flags
        self.ports = [Ports(*free_ports(2)) for _ in range(NUM_SERVERS)]
        self._processes: list[subprocess.Popen[str]] = [self._start(i) for i in range(NUM_SERVERS)]

    def _start(self, number: int) -> "subprocess.Popen[str]":
        ports = self.ports[number]
        numbers = ("--port", str(ports.calls), "--health-port", str(ports.health))
        flags = f"--models={MODEL}", *numbers, *self._flags
        return serving_process(self._stack, Path("bundles"), *flags)

    async def restart(self, number: int, stop: signal.Signals = signal.SIGTERM) -> None:
        """End a server, and start it again."""
        process = self._processes[number]
        process.send_signal(stop)
        await asyncio.to_thread(process.wait)
        self._processes[number] = await asyncio.to_thread(self._start, number)

    async def disturb(self, event: str) -> None:
        """Let an event happen at the first server, or at one after the other."""
        if event == "rolling":
            for number in range(NUM_SERVERS):
                await self.restart(number)
        elif event == "STOP":
            self._processes[0].send_signal(signal.SIGSTOP)
            await asyncio.sleep(SUSPENDED_SECONDS)
            self._processes[0].send_signal(signal.SIGCONT)
        else:
            await self.restart(0, signal.Signals[f"SIG{event}"])


@contextmanager
def running_system(system: str, folder: Path) -> Iterator[tuple[Fleet, AsyncClient]]:
    """Three servers and a client of them, through a proxy or not."""
    folder.mkdir()
    authority = Authority(folder)
    files = authority.issue("server", hosts=(SERVER_NAME,))
    with ExitStack() as stack:
        if system == "client":
            fleet = Fleet(stack, ())
            target = ",".join(f"127.0.0.1:{ports.calls}" for ports in fleet.ports)
            yield fleet, AsyncClient(target, timeout_seconds=TIMEOUT_SECONDS)
        else:
            fleet = Fleet(stack, (f"--tls-cert={files.cert}", f"--tls-key={files.key}"))
            pools = {POOL: fleet.ports}
            proxy = running_proxy(PROXIES[system], folder / "proxy", authority, pools)
            target = stack.enter_context(proxy).target
            yield fleet, AsyncClient(target, tls_ca=authority.file, timeout_seconds=TIMEOUT_SECONDS)


async def phases(
    fleet: Fleet, client: AsyncClient, texts: Sequence[str], event: str, rate: float, seconds: float
) -> dict[str, object]:
    """Load the servers before, during and after an event; returns a row of the table."""

    async def send(text: str) -> int:
        try:
            return len((await client.translate(text, model=MODEL)).text)
        except CallError as error:
            raise Refused(error.code.name) from error

    calls = (list(texts) * 100)[: int(rate * seconds)]
    before = await poisson(send, calls, rate, 1)
    short = calls[: int(LOAD_SECONDS * rate)]
    during = await _while(fleet.disturb(event), lambda: poisson(send, short, rate, 2))
    after = await poisson(send, calls, rate, 3)
    results = (before, during, after)
    failures = sum((result.failures for result in results), Counter[str]())
    answered = sum(len(result.latencies) for result in results)
    times = {
        f"p99 {name}, ms": 1e3 * result.latency(99)
        for name, result in zip(("before", "during", "after"), results, strict=True)
    }
    return (
        {"event": event, "sent": answered + failures.total(), "answered": answered}
        | times
        | {"failed": dict(failures) or 0}
    )


async def _while(event: Awaitable[None], load: Callable[[], Awaitable[LoadResult]]) -> LoadResult:
    """The results of loads, one beginning after the other, until an event has ended."""
    happening, loads = asyncio.ensure_future(event), [asyncio.ensure_future(load())]
    while not happening.done():
        await asyncio.sleep(LOAD_SECONDS)
        loads.append(asyncio.ensure_future(load()))
    found = LoadResult()
    for part in await asyncio.gather(*loads):
        found.latencies += part.latencies
        found.failures += part.failures
    return found


async def _rows(
    system: str, texts: Sequence[str], arguments: argparse.Namespace
) -> AsyncIterator[dict[str, object]]:
    """The rows of one system, each as soon as it is measured."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_system(system, Path(folder) / "files") as (fleet, client),
    ):
        async with client:
            await asyncio.sleep(SETTLE_SECONDS)
            for event in arguments.events:
                row = await phases(fleet, client, texts, event, arguments.rate, arguments.seconds)
                print({"system": system} | row, flush=True)
                yield {"system": system} | row


async def run(arguments: argparse.Namespace) -> None:
    """Measure every event with every system."""
    texts = sample_texts(arguments.data_dir, "short", 200)
    rows = [row for system in arguments.systems async for row in _rows(system, texts, arguments)]
    report("failover", {"rate": arguments.rate, "rows": rows}, table(rows))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rate", type=float, default=20, help="calls per second")
    parser.add_argument("--seconds", type=float, default=15, help="of each phase")
    parser.add_argument("--systems", type=some_of(*SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--events", type=some_of(*EVENTS), default=list(EVENTS))
    return parser


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
