"""The memory of the GPU in the metrics."""

import logging

from attendant_server.observability.metrics import Metrics, NoMetrics
from attendant_server.runtime.sessions import gpu_memory
from attendant_server.system.blocking_work import run_blocking

logger = logging.getLogger(__name__)


async def watch_device_memory(metrics: Metrics | NoMetrics) -> None:
    """Show the memory of the GPU, unless it cannot be read."""
    try:
        await run_blocking(gpu_memory)
    except (OSError, RuntimeError) as error:  # no reason not to serve
        logger.warning("event=no_device_memory_metrics %s", error)
    else:
        metrics.watch_device_memory(gpu_memory)
