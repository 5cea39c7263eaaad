"""How much memory is in use and how much may be: of the control group, else of the machine."""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from attendant_server.system.control_groups import control_groups


class HostMemory(NamedTuple):
    """Bytes."""

    used: int
    """Files that can be dropped from memory at any time do not count."""
    limit: int


class _Names(NamedTuple):
    """Files of a control group, and the key in ``memory.stat`` of what can be dropped."""

    limit: str
    used: str
    droppable: str


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Names("memory.max", "memory.current", "inactive_file")


def return_freed_memory() -> None:
    """Give what malloc keeps for later back to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def host_memory(root: Path = Path("/")) -> HostMemory:
    """Read it now, for the control group on this process's path that has the lowest limit.

    Raises OSError where ``/proc`` does not tell.
    """
    machine = _machine(root)
    groups = [group for group in _groups(root) if group.limit < machine.limit]
    return min(groups, key=lambda group: group.limit, default=machine)


def _machine(root: Path) -> HostMemory:
    lines = (root / "proc/meminfo").read_text().splitlines()
    kibibytes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    total = kibibytes["MemTotal"] * 1024
    return HostMemory(total - kibibytes["MemAvailable"] * 1024, total)


def _groups(root: Path) -> Iterator[HostMemory]:
    """All groups that this process is in and that have a limit."""
    for folder, is_v2 in control_groups("memory", root):
        names = _V2 if is_v2 else _V1
        try:
            limit = (folder / names.limit).read_text().strip()
            if limit != "max":
                yield HostMemory(_used(folder, names), int(limit))
        except (OSError, ValueError):
            pass  # not every group on the path can be seen, and the root has no limit


def _used(folder: Path, names: _Names) -> int:
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int((folder / names.used).read_text()) - int(statistics[names.droppable])
