"""Callers that call all the time while servers come and go."""

import asyncio
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from attendant_client import AsyncClient, AttendantError

from tests.support.processes import port_of, server_process
from tests.support.serving import TIMEOUT_SECONDS

TEXT = "The dog sees the king."
CALLERS = 4
"""Callers of each kind."""


class Load:
    """Callers that call without a pause, and the counts of their answers and errors."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._kinds: tuple[str, ...] = ()
        self.answers = Counter[str]()
        self.errors: list[AttendantError] = []

    async def translate(self) -> None:
        await self._client.translate([TEXT, TEXT])

    async def embed(self) -> None:
        await self._client.embed([TEXT, TEXT])

    async def stream(self) -> None:
        async with self._client.stream_translate(TEXT) as stream:
            assert "".join([delta async for delta in stream]) == stream.translation.text

    async def _call_repeatedly(self, kind: str) -> None:
        while self._kinds:
            try:
                await getattr(self, kind)()
                self.answers[kind] += 1
            except AttendantError as error:
                self.errors.append(error)

    @asynccontextmanager
    async def running(self, *kinds: str) -> AsyncIterator[None]:
        """Call while the block runs, and then wait until all calls have ended."""
        self._kinds = kinds
        async with asyncio.TaskGroup() as callers:
            for kind in kinds * CALLERS:
                callers.create_task(self._call_repeatedly(kind))
            try:
                yield
            finally:
                self._kinds = ()

    async def answers_of_each(self, number: int) -> None:
        """Wait for so many further answers to each kind of call that is running."""
        enough = {kind: self.answers[kind] + number for kind in self._kinds}
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while any(self.answers[kind] < enough[kind] for kind in enough):
                await asyncio.sleep(0.01)


def serving_process(stack: ExitStack, bundles: Path, *flags: str) -> "subprocess.Popen[str]":
    """A server that serves, whose log is read; ``stack`` kills it in the end."""
    process = stack.enter_context(server_process(bundles, *flags))
    port_of(process)
    read_on(process)
    return process


def read_on(process: "subprocess.Popen[str]") -> None:
    """Read the log in a thread, so that it never fills the pipe."""
    assert process.stderr is not None
    threading.Thread(target=process.stderr.read, daemon=True).start()
