"""The processors that this process may use, by its affinity and its CPU quota."""

import os
from collections.abc import Iterator
from pathlib import Path

from attendant_server.system.control_groups import control_groups

CAN_PIN = hasattr(os, "sched_setaffinity")
"""Whether the system can pin threads to processors; macOS cannot."""


def processor_ids() -> list[int]:
    """The processors that this process may run on, in order."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU quota of the control groups, in processors; None if there is no quota.

    The lowest quota of all groups on the path counts, because the kernel enforces every quota.
    """
    return min(_quotas(root), default=None)


def num_processors(root: Path = Path("/")) -> int:
    """Number of processors to size thread pools by; at least one.

    A quota is rounded down, and the event loop uses the fraction. With one thread too many, the
    kernel would stop all threads of the process for the rest of every quota period.
    """
    num_available = len(processor_ids())
    quota = cpu_quota(root)
    return num_available if quota is None else max(1, min(num_available, int(quota)))


def _quotas(root: Path) -> Iterator[float]:
    for folder, is_v2 in control_groups("cpu", root):
        try:
            quota, period = _quota_and_period(folder, is_v2)
            if quota > 0:  # -1 means no limit in version 1
                yield quota / period
        except (OSError, ValueError, ZeroDivisionError):
            pass  # some groups on the path are not visible, and "max" means no limit in version 2


def _quota_and_period(folder: Path, is_v2: bool) -> tuple[int, int]:
    if is_v2:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota), int(period)
    texts = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return int(next(texts)), int(next(texts))
