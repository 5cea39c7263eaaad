"""The life of the server's process: settings in, exit code out."""

import asyncio
import logging
import signal

from attendant_server.app import Server, StartError
from attendant_server.bundles import BundleError
from attendant_server.settings import Settings

SIGNALS = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


async def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, or until the engine dies; returns the exit code.

    A second signal ends it at once.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stopping.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        server = Server(settings)
        await server.start()
    except (BundleError, StartError) as error:
        logger.error("event=start_failed %s", error)
        return 1
    return await _serve_until(stopping, server)


async def _serve_until(stopping: asyncio.Event, server: Server) -> int:
    loading = asyncio.ensure_future(server.load())
    stopped = asyncio.ensure_future(stopping.wait())
    died = asyncio.ensure_future(server.engine_has_died.wait())
    await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if loading.done():
            loading.result()
            print(f"attendant is serving on port {server.port}: {server.models()}", flush=True)
        await asyncio.wait({stopped, died}, return_when=asyncio.FIRST_COMPLETED)
        return 1 if died.done() else 0
    except BundleError as error:
        logger.error("event=start_failed %s", error)
        return 1
    finally:
        for waiting in (loading, stopped, died):
            waiting.cancel()
        await server.stop()
