"""The control groups (versions 1 and 2) of this process. Knows no particular limit."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MOUNT = "sys/fs/cgroup"


class ControlGroup(NamedTuple):
    """A control group that contains this process, directly or through a child group."""

    folder: Path
    is_v2: bool


def control_groups(controller: str, root: Path) -> Iterator[ControlGroup]:
    """All groups that may limit ``controller``, such as ``cpu``, innermost first.

    ``root`` contains ``proc`` and ``sys``. The folder of a group need not exist.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # only Linux has control groups
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _on_path(root / MOUNT, path, is_v2=True)
        elif controller in controllers.split(","):
            yield from _on_path(root / MOUNT / controller, path, is_v2=False)


def _on_path(mount: Path, path: str, is_v2: bool) -> Iterator[ControlGroup]:
    # In a container the path can be the host's, while the mount begins at the container's group.
    own = mount / path.strip("/")
    for folder in (own, *own.parents):
        yield ControlGroup(folder, is_v2)
        if folder == mount:
            return
