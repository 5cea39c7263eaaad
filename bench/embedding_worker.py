"""Engines without a server: each runs in a process, and perhaps an environment, of its own.

`serve` is the engine's side: it reads commands from the standard input and measures where the
engine is, so that nothing but the engine's own work is counted. `Worker` is the bench's side.
Messages are JSON, one a line. What the engine's library prints goes to the standard error.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.loads import LoadResult, closed_loop, poisson

FloatArray = NDArray[np.float32]
MAX_MESSAGE_BYTES = 1 << 26
END_SECONDS = 15
"""An engine whose threads go on for longer when nothing is left to do is killed."""


class Engine(Protocol):
    """What embeds texts."""

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of length 1 (texts, d), in the order of the texts."""


def serve(engine: Engine) -> None:
    """Answer commands until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asyncio.run(_serve(engine, answers))


async def _serve(engine: Engine, answers: Any) -> None:
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer = await (_save if "path" in command else _measure)(engine, command)
        print(json.dumps(answer), file=answers, flush=True)


async def _save(engine: Engine, command: dict[str, Any]) -> None:
    np.save(command["path"], await engine.embed(command["texts"]))


async def _measure(engine: Engine, command: dict[str, Any]) -> dict[str, Any]:
    async def send(texts: Sequence[str]) -> int:
        return len(await engine.embed(texts))

    calls = command["calls"]
    if "calls_per_second" in command:
        return asdict(await poisson(send, calls, command["calls_per_second"]))
    return asdict(await closed_loop(send, calls, command["concurrency"]))


class Worker:
    """An engine in another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def closed_loop(self, calls: Sequence[Sequence[str]], concurrency: int) -> LoadResult:
        """`loads.closed_loop` there."""
        return await self._result({"calls": calls, "concurrency": concurrency})

    async def poisson(self, calls: Sequence[Sequence[str]], calls_per_second: float) -> LoadResult:
        """`loads.poisson` there."""
        return await self._result({"calls": calls, "calls_per_second": calls_per_second})

    async def vectors(self, texts: Sequence[str]) -> FloatArray:
        """The vectors of ``texts`` (texts, d)."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "vectors.npy")
            await self.ask({"texts": texts, "path": str(path)})
            return np.asarray(np.load(path))

    async def _result(self, command: dict[str, Any]) -> LoadResult:
        content = await self.ask(command)
        failures = Counter(content.pop("failures"))
        return LoadResult(failures=failures, **content)

    async def ask(self, command: dict[str, Any] | None) -> Any:
        """The answer to one command; with None, the first message that the process sends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if command is not None:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("an engine's process ended; what it wrote stands above")
        return json.loads(line)


@asynccontextmanager
async def running_worker(
    command: Sequence[str], environment: dict[str, str] | None = None
) -> AsyncIterator[Worker]:
    """A worker that `serve`s, loaded and waiting; ended with the block."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
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
