"""How many processors this process may use: those of its affinity, within its CPU quota."""

import os
from collections.abc import Iterator
from pathlib import Path

from attendant_server.system.control_groups import control_groups

CAN_PIN = hasattr(os, "sched_setaffinity")
"""Whether threads can be kept on processors; not so on macOS."""


def processor_ids() -> list[int]:
    """The processors that this process may run on, in order."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the control groups allow; None if they set no limit.

    The lowest limit of all groups on the path counts, as the kernel enforces each.
    """
    return min(_quotas(root), default=None)


def num_processors(root: Path = Path("/")) -> int:
    """Processors to size thread pools by; at least one.

    Fractions of a quota are left to the event loop: with a thread too many, all threads of the
    process are stopped for the rest of every period of the quota.
    """
    num_available = len(processor_ids())
    quota = cpu_quota(root)
    return num_available if quota is None else max(1, min(num_available, int(quota)))


def _quotas(root: Path) -> Iterator[float]:
    for folder, is_v2 in control_groups("cpu", root):
        try:
            quota, period = _quota_and_period(folder, is_v2)
            if quota > 0:  # -1 is no limit in version 1
                yield quota / period
        except (OSError, ValueError, ZeroDivisionError):
            pass  # not every group on the path can be seen, and "max" is no limit in version 2


def _quota_and_period(folder: Path, is_v2: bool) -> tuple[int, int]:
    if is_v2:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota), int(period)
    texts = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return int(next(texts)), int(next(texts))
