"""Notices model runs that hang, stops them, and gives up an engine whose run cannot be stopped."""

import asyncio
import logging
from collections.abc import Callable

from attendant_server.engine.engine import Engine
from attendant_server.engine.scheduler import Scheduler
from attendant_server.system.blocking_work import run_blocking

PERIOD_SECONDS = 1.0
STOP_SECONDS = 10.0
"""Seconds that a run has to end after it was stopped: ONNX Runtime ends it after the operator that
it executes."""

logger = logging.getLogger(__name__)


async def watch_runs(
    engine: Callable[[], Engine | None],
    max_seconds: float,
    on_abandoned: Callable[[], None],
    period_seconds: float = PERIOD_SECONDS,
    stop_seconds: float = STOP_SECONDS,
) -> None:
    """Stop each run that takes longer than ``max_seconds``, until cancelled.

    By then its callers have gone. If it has not ended ``stop_seconds`` later, the engine's calls
    are answered with Unavailable, and ``on_abandoned`` is called unless the engine has died
    meanwhile. Rounds are counted, so that no run seems to hang after a pause of the process.
    """
    num_rounds: dict[Scheduler, int] = {}  # in which a scheduler's run was stopped
    while True:
        await asyncio.sleep(period_seconds)
        present = engine()
        hanging = [] if present is None else present.hanging(max_seconds)
        num_rounds = {each: num_rounds.get(each, 0) for each in hanging}
        if present and max(num_rounds.values(), default=0) * period_seconds >= stop_seconds:
            logger.critical("event=engine_abandoned")
            if await run_blocking(present.abandon):
                on_abandoned()
            num_rounds = {}
        for scheduler in num_rounds:
            logger.error("event=model_run_hangs model=%s", scheduler.name)
            scheduler.stop_runs()
            num_rounds[scheduler] += 1
