"""The server's process: start, signals, exit code."""

import asyncio
import logging
import signal
from typing import Any

from attendant_server.app import Server, StartError
from attendant_server.bundles import BundleError
from attendant_server.settings import Settings
from attendant_server.system.blocking_work import run_blocking
from attendant_server.system.early_signals import was_kept
from attendant_server.system.garbage import collect_garbage_rarely
from attendant_server.system.standard_streams import has_terminal, say

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

RETRY_SECONDS = 1.0

logger = logging.getLogger(__name__)


async def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, or until the engine dies for good; returns the exit code.

    A second signal ends it at once. A hanging start does not delay the end. SIGHUP lets the server
    serve the bundles as they are now, or stops it if its terminal was closed.
    """
    stopping, refreshing = _stop_event(), asyncio.Event()
    _listen_for_hangups(stopping, refreshing)
    stopped: asyncio.Future[Any] = asyncio.ensure_future(stopping.wait())
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
    greets = settings.log_format == "console"
    return await _serve_until(stopped, refreshing, server, greets)


def _stop_event() -> asyncio.Event:
    """Set by the first signal."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stopping.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop)
    if any(was_kept(number) for number in STOP_SIGNALS):
        stop()
    return stopping


def _listen_for_hangups(stopping: asyncio.Event, refreshing: asyncio.Event) -> None:
    """Set one of the events at SIGHUP."""
    # With nohup, SIGHUP is ignored: the server is meant to survive its terminal.
    had_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def choose() -> None:
        (stopping if had_terminal and not has_terminal() else refreshing).set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, choose)
    if was_kept(signal.SIGHUP):
        choose()


async def _refresh_whenever(requested: asyncio.Event, server: Server) -> None:
    """Refresh the models after each request, until cancelled."""
    while True:
        await requested.wait()
        requested.clear()
        logger.info("event=refreshing")
        while not await server.lifecycle.refresh():
            await asyncio.sleep(RETRY_SECONDS)  # the engine is being restarted


async def _started(settings: Settings) -> Server:
    server = await run_blocking(Server, settings)
    await server.start()
    return server


async def _serve_until(
    stopped: "asyncio.Future[Any]", refreshing: asyncio.Event, server: Server, greets: bool
) -> int:
    loading: asyncio.Future[Any] = asyncio.ensure_future(server.load())
    died: asyncio.Future[Any] = asyncio.ensure_future(server.supervisor.has_given_up.wait())
    tasks = [loading, stopped, died]
    await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if loading.done():
            loading.result()
            collect_garbage_rarely()
            tasks.append(asyncio.ensure_future(_refresh_whenever(refreshing, server)))
            if greets:  # the JSON log has the line event=serving instead
                where = f"port {server.port}" if server.port else server.address
                if server.http_address:
                    where += f", and over HTTP on port {server.http_port}"
                say(f"attendant is serving on {where}: {server.models()}")
        await asyncio.wait({stopped, died}, return_when=asyncio.FIRST_COMPLETED)
        return 1 if died.done() else 0
    except BundleError as error:
        logger.error("event=start_failed %s", error)
        return 1
    finally:
        for task in tasks:
            task.cancel()
        await server.stop()
