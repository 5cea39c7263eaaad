"""In-process engines, each in a process of its own and, if needed, an environment of its own.

`serve` runs in the engine's process. It reads commands from standard input and measures there, so
that results include only the engine's work. `Worker` runs in the bench's process. Messages are
lines of JSON. Output of the engine's library goes to standard error.
"""

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.loads import LoadResult, closed_loop, poisson

FloatArray = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Awaitable[FloatArray]]
"""Returns normalized vectors (texts, d) in the order of the texts."""
MAX_MESSAGE_BYTES = 1 << 26
END_SECONDS = 15
"""Timeout for an idle engine's threads to end before its process is killed."""


def engine_arguments(description: str | None, *names: str) -> argparse.Namespace:
    """Parse the command line of an engine: required strings and a number of threads."""
    parser = argparse.ArgumentParser(description=description)
    for name in names:
        parser.add_argument(name, required=True)
    parser.add_argument("--num-threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


async def load(
    embed: Embed, calls: Sequence[Sequence[str]], concurrency: int, calls_per_second: float
) -> LoadResult:
    """Poisson arrivals if a rate is given, else a closed loop of ``concurrency`` callers."""

    async def send(texts: Sequence[str]) -> int:
        return len(await embed(texts))

    if calls_per_second:
        return await poisson(send, calls, calls_per_second)
    return await closed_loop(send, calls, concurrency)


def serve(embed: Embed) -> None:
    """Answer commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asyncio.run(_serve(embed, answers))


async def _serve(embed: Embed, answers: Any) -> None:
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "texts" in command:
            answer = (await embed(command["texts"])).tolist()
        else:
            answer = asdict(await load(embed, **command))
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """An engine in another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def measure(
        self, calls: Sequence[Sequence[str]], concurrency: int = 1, calls_per_second: float = 0.0
    ) -> LoadResult:
        """Run a `load` on the engine, in its process."""
        load = {"calls": calls, "concurrency": concurrency, "calls_per_second": calls_per_second}
        content = await self.ask(load)
        return LoadResult(**content | {"failures": Counter(content["failures"])})

    async def vectors(self, texts: Sequence[str]) -> FloatArray:
        """The vectors of ``texts`` (texts, d)."""
        return np.array(await self.ask({"texts": texts}), np.float32)

    async def ask(self, command: dict[str, Any] | None) -> Any:
        """Send a command and return the answer. None sends nothing and reads the first message."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if command is not None:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("an engine's process ended; see its errors above")
        return json.loads(line)


@asynccontextmanager
async def running_worker(command: Sequence[str]) -> AsyncIterator[Worker]:
    """Start a process that runs `serve`; it is loaded and idle while the block runs."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_MESSAGE_BYTES,
    )
    worker = Worker(process)
    try:
        await worker.ask(None)
        yield worker
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
