"""Loads a server at 1.5 times its capacity for many minutes, with clients that come and go.

    python -m bench.serving.soak --minutes 20

Finds the capacity first, with callers that wait for their answers. The load then mixes
translations, streams, embeddings, cancellations, deadlines, requests that are no messages, and
clients that leave without a word. A part of the answers is compared with those of calls alone.
Exits with 1 if calls failed, were lost or answered wrongly, if more than 1 % of them were admitted
and reached the server's limit of time (`late`), if memory, files or threads grew, or if gauges do
not return to 0.
"""

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

from bench.arguments import add_server_flags, bench_parser
from bench.reporting import report
from bench.servers import ONE_OF_EACH_KIND, RunningServer, running_server
from bench.serving.soak_calls import Callers
from bench.serving.soak_judgement import Soak

OVERLOAD = 1.5
NUM_CALLERS = 32
CAPACITY_SHARE, WARM_UP_SHARE = 0.1, 0.25
GAUGES = (
    "attendant_queued_texts",
    "attendant_rows_used",
    "attendant_active_sentences",
    "attendant_concurrent_calls",
    "attendant_arriving_requests",
    "attendant_waiting_requests",
    "attendant_request_streams",
    "attendant_arriving_health_requests",
    "attendant_waiting_health_requests",
    "attendant_held_bytes",
    "attendant_unread_answers",
)
REST_SECONDS = 60.0


async def soak(server: RunningServer, seconds: float, seed: int = 1) -> tuple[Soak, float]:
    """Load the server; returns the figures and the capacity in calls per second."""
    callers = Callers(server.target, random.Random(seed))
    await callers.learn()
    files, threads = _num_files(server), _num_threads(server)
    capacity = await _capacity(callers, max(3.0, CAPACITY_SHARE * seconds))
    callers.soak = found = Soak()
    sampling = asyncio.create_task(_sample(server, found, WARM_UP_SHARE * seconds))
    await _open_loop(callers, OVERLOAD * capacity, seconds)
    sampling.cancel()
    await callers.close()
    found.gauges = await _gauges_at_rest(server)
    found.files = files, _num_files(server)
    found.threads = threads, _num_threads(server)
    return found, capacity


async def _capacity(callers: Callers, seconds: float) -> float:
    """Calls per second from callers that wait for their answers."""
    ends, num_calls = time.monotonic() + seconds, 0

    async def caller() -> None:
        nonlocal num_calls
        while time.monotonic() < ends:
            await callers.call()
            num_calls += 1

    await asyncio.gather(*(caller() for _ in range(NUM_CALLERS)))
    return num_calls / seconds


async def _open_loop(callers: Callers, calls_per_second: float, seconds: float) -> None:
    """Calls at random times that do not wait for earlier answers."""
    started = due = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while due < started + seconds:
            due += callers.rng.expovariate(calls_per_second)
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            group.create_task(callers.call())


async def _sample(server: RunningServer, found: Soak, warm_up_seconds: float) -> None:
    started = time.monotonic()
    await asyncio.sleep(warm_up_seconds)
    while True:
        found.memory.append((time.monotonic() - started, server.resident_bytes()))
        await asyncio.sleep(0.5)


async def _gauges_at_rest(server: RunningServer) -> dict[str, float]:
    """The gauges when they are 0, or after a minute."""
    give_up = time.monotonic() + REST_SECONDS
    while True:
        gauges = {name: server.total(name) for name in GAUGES}
        if not any(gauges.values()) or time.monotonic() > give_up:
            return gauges
        await asyncio.sleep(0.2)


def _num_files(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def _num_threads(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    parser.add_argument("--minutes", type=float, default=20)
    add_server_flags(parser)
    return parser


def run(arguments: argparse.Namespace) -> list[str]:
    """Soak the built-in models, and report; returns the faults."""
    with running_server(ONE_OF_EACH_KIND, *arguments.server_flags) as server:
        found, capacity = asyncio.run(soak(server, 60 * arguments.minutes))
        peak = server.peak_resident_bytes()
    figures = {
        "capacity_calls_per_second": capacity,
        "sent": found.calls.total(),
        "calls": {name: found.calls[name] for name in ("failed", "lost", "wrong")} | found.calls,
        "failures": dict(found.failures),
        "memory_bytes_per_minute": found.bytes_per_minute,
        "peak_resident_bytes": peak,
        "files": found.files,
        "threads": found.threads,
        "gauges": found.gauges,
    }
    faults = found.faults()
    report("soak", figures, f"{figures}\nfaults: {', '.join(faults) or 'none'}")
    return faults


if __name__ == "__main__":
    sys.exit(1 if run(build_parser().parse_args()) else 0)
