"""The server's process: start, signals, exit code."""

import asyncio
import gc
import logging
import signal
from typing import Any

from attendant_server.app import Server, StartError
from attendant_server.bundles import BundleError
from attendant_server.settings import Settings
from attendant_server.system.blocking_work import run_blocking
from attendant_server.system.standard_streams import say

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GARBAGE_THRESHOLD = 10_000
"""New objects between two collections; Python's default is 700."""

logger = logging.getLogger(__name__)


async def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, or until the engine dies; returns the exit code.

    A second signal ends it at once. A hanging start does not delay the end.
    """
    stopped: asyncio.Future[Any] = asyncio.ensure_future(_stop_event().wait())
    starting = asyncio.ensure_future(_started(settings))
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # so it has no calls yet
        logger.info("event=stopped")
        return 0
    try:
        server = starting.result()
    except (BundleError, StartError) as error:
        logger.error("event=start_failed %s", error)
        return 1
    return await _serve_until(stopped, server, greets=settings.log_format == "console")


def _stop_event() -> asyncio.Event:
    """Set by the first signal."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stopping.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    return stopping


async def _started(settings: Settings) -> Server:
    server = await run_blocking(Server, settings)
    await server.start()
    return server


def _collect_garbage_rarely() -> None:
    """Keep collections from looking at the models, and at the objects of each few calls.

    Hardly any object of a call is part of a cycle: almost all are freed without a collection.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


async def _serve_until(stopped: "asyncio.Future[Any]", server: Server, greets: bool) -> int:
    loading: asyncio.Future[Any] = asyncio.ensure_future(server.load())
    died: asyncio.Future[Any] = asyncio.ensure_future(server.engine_has_died.wait())
    await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if loading.done():
            loading.result()
            _collect_garbage_rarely()
            if greets:  # the JSON log has the line event=serving instead
                where = f"port {server.port}" if server.port else server.address
                say(f"attendant is serving on {where}: {server.models()}")
        await asyncio.wait({stopped, died}, return_when=asyncio.FIRST_COMPLETED)
        return 1 if died.done() else 0
    except BundleError as error:
        logger.error("event=start_failed %s", error)
        return 1
    finally:
        for waiting in (loading, stopped, died):
            waiting.cancel()
        await server.stop()
