"""The control groups, of version 1 and 2, that limit this process. Knows no kind of limit."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOUNT = "sys/fs/cgroup"


class ControlGroup(NamedTuple):
    """A group with this process in it, at any depth."""

    folder: Path
    is_v2: bool


def control_groups(controller: str, root: Path) -> Iterator[ControlGroup]:
    """All groups that may limit ``controller``, such as ``cpu``, from the innermost outwards.

    ``root`` is the folder of ``proc`` and ``sys``. A folder that is given need not exist.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # there are none on other systems than Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _on_path(root / MOUNT, path, is_v2=True)
        elif controller in controllers.split(","):
            yield from _on_path(root / MOUNT / controller, path, is_v2=False)


def _on_path(mount: Path, path: str, is_v2: bool) -> Iterator[ControlGroup]:
    # In a container the path can be that of the host, while the mount begins at the own group.
    own = mount / path.strip("/")
    for folder in (own, *own.parents):
        yield ControlGroup(folder, is_v2)
        if folder == mount:
            return
