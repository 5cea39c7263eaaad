"""Memory in use and memory limit, of the control group or else of the machine."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from attendant_server.system.control_groups import control_groups
from attendant_server.system.garbage import collect_garbage


class HostMemory(NamedTuple):
    """Memory in use and its limit, in bytes."""

    used: int
    """Memory in use, without reclaimable file cache."""
    limit: int


class _Names(NamedTuple):
    """Names of a control group's files, and the key of reclaimable memory in ``memory.stat``."""

    limit: str
    used: str
    droppable: str


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Names("memory.max", "memory.current", "inactive_file")


def return_freed_memory() -> None:
    """Return free memory of malloc to the system, if the C library supports it (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def free_memory() -> None:
    """Free objects that nothing refers to, and return their memory to the system."""
    collect_garbage()
    return_freed_memory()


def host_memory(root: Path = Path("/")) -> HostMemory:
    """The present values of the control group with the lowest limit on this process's path.

    If ``/proc`` has no memory information, as on macOS, the limit is the memory of the machine, and
    the memory in use that of this process at its peak.
    """
    try:
        machine = _machine(root)
    except (OSError, LookupError, ValueError):
        return _machine_without_proc()
    groups = [group for group in _groups(root) if group.limit < machine.limit]
    return min(groups, key=lambda group: group.limit, default=machine)


def _machine(root: Path) -> HostMemory:
    lines = (root / "proc/meminfo").read_text().splitlines()
    kibibytes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    total = kibibytes["MemTotal"] * 1024
    return HostMemory(total - kibibytes["MemAvailable"] * 1024, total)


def _machine_without_proc() -> HostMemory:
    unit = 1 if sys.platform == "darwin" else 1024  # of the peak
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return HostMemory(used, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _groups(root: Path) -> Iterator[HostMemory]:
    """All control groups of this process that have a limit."""
    for folder, is_v2 in control_groups("memory", root):
        names = _V2 if is_v2 else _V1
        try:
            limit = (folder / names.limit).read_text().strip()
            if limit != "max":
                yield HostMemory(_used(folder, names), int(limit))
        except (OSError, ValueError):
            pass  # some groups on the path are not visible, and the root group has no limit


def _used(folder: Path, names: _Names) -> int:
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int((folder / names.used).read_text()) - int(statistics[names.droppable])
