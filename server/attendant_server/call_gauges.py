"""What the metrics show of the limits of all calls together, and of memory."""

from collections.abc import Callable

from attendant_server.application.admission import CallAdmission
from attendant_server.application.arrivals import Arrivals
from attendant_server.application.held_memory import HeldMemory
from attendant_server.settings import Settings
from attendant_server.system.memory import host_memory


def call_gauges(
    settings: Settings, admission: CallAdmission, memory: HeldMemory, arrivals: Arrivals
) -> dict[str, Callable[[], float]]:
    """Functions that return the values of gauges, by the names of the gauges."""
    arriving, of_health = arrivals.calls, arrivals.health
    return {
        "attendant_concurrent_calls": lambda: admission.num_calls,
        "attendant_max_concurrent_calls": lambda: settings.max_concurrent_calls,
        "attendant_arriving_requests": lambda: arriving.num_requests,
        "attendant_waiting_requests": lambda: arriving.num_waiting,
        "attendant_request_streams": lambda: arriving.num_streams,
        "attendant_max_arriving_requests": lambda: arriving.max_requests,
        "attendant_arriving_health_requests": lambda: of_health.num_requests,
        "attendant_waiting_health_requests": lambda: of_health.num_waiting,
        "attendant_held_bytes": lambda: memory.num_bytes,
        "attendant_max_held_bytes": lambda: memory.max_bytes,
        "attendant_unread_answers": lambda: memory.num_unread_answers,
        "attendant_memory_used_bytes": lambda: host_memory().used,
        "attendant_memory_limit_bytes": lambda: host_memory().limit,
    }
