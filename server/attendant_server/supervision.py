"""Keeps an engine running: replaces one that has died, and gives up after many deaths."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial

from attendant_server.engine.engine import Engine
from attendant_server.hanging_runs import watch_runs
from attendant_server.lifecycle import ModelLifecycle
from attendant_server.loading import ModelLoader
from attendant_server.restarts import Restarts
from attendant_server.system.memory import return_freed_memory
from attendant_server.system.priorities import lower_priority
from attendant_server.system.subnormals import flush_subnormals

logger = logging.getLogger(__name__)


class EngineSupervisor:
    """Starts the engine of a server, and another one after its death."""

    def __init__(
        self,
        loader: ModelLoader,
        lifecycle: ModelLifecycle,
        max_run_seconds: float,
        on_death: Callable[[], Awaitable[None]],
        on_restart: Callable[[], None],
    ) -> None:
        """``max_run_seconds`` is the time after which a model run is stopped.

        ``on_death`` is awaited after each death, when all calls are answered and no model is ready
        any more; ``on_restart`` is called when all models are ready again.
        """
        self._loader, self._lifecycle = loader, lifecycle
        self._max_run_seconds = max_run_seconds
        self._on_death, self._on_restart = on_death, on_restart
        self._restarts = Restarts()
        self._watch: asyncio.Task[None] | None = None
        self._restarting: Future[None] | None = None
        self.has_given_up = asyncio.Event()
        """Set after a death that ends the server."""

    async def start(self) -> None:
        """Load the models and start an engine that runs them. Raises BundleError."""
        await self._lifecycle.start(self._new_engine())
        on_abandoned = partial(self._restart_soon, asyncio.get_running_loop())
        watching = watch_runs(lambda: self._lifecycle.engine, self._max_run_seconds, on_abandoned)
        self._watch = asyncio.ensure_future(watching)

    def stop(self) -> None:
        """End the supervision, and a restart in progress."""
        for work in (self._watch, self._restarting):
            if work is not None:
                work.cancel()

    def _new_engine(self) -> Engine:
        engine = Engine(
            self._loader.num_workers,
            self._loader.clock,
            self._loader.worker_processors,
            on_idle=return_freed_memory,
            on_start=_prepare_worker,
        )
        engine.on_death = partial(self._restart_soon, asyncio.get_running_loop())
        return engine

    def _restart_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._restarting = asyncio.run_coroutine_threadsafe(self._restart(), loop)

    async def _restart(self) -> None:
        """Load all models again after the engine has died, or give up after many deaths."""
        self._lifecycle.close()
        await self._on_death()
        delay_seconds = self._restarts.next_delay()
        if delay_seconds is None:
            self.has_given_up.set()
            return
        logger.warning("event=engine_restarting seconds=%g", delay_seconds)
        await asyncio.sleep(delay_seconds)
        try:
            await self._lifecycle.start(self._new_engine())
        except Exception:
            logger.exception("event=engine_not_restarted")
            self.has_given_up.set()
        else:
            self._on_restart()
            logger.info("event=engine_restarted")


def _prepare_worker() -> None:
    """Set what applies to the thread of a worker only."""
    flush_subnormals()
    # The event loop takes little time, but batches fill only as fast as it accepts calls.
    lower_priority()
