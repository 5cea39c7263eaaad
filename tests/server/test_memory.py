import os
from pathlib import Path

import pytest
from attendant_server.system.memory import HostMemory, host_memory

MACHINE = HostMemory(used=600 * 1024, limit=1000 * 1024)
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a machine without control groups."""
    write(tmp_path, "proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n")
    return tmp_path


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def write_v2(root: Path, folder: str, limit: str) -> None:
    write(root, f"{V2}{folder}/memory.max", f"{limit}\n")
    write(root, f"{V2}{folder}/memory.current", "5000\n")
    write(root, f"{V2}{folder}/memory.stat", "anon 1\ninactive_file 1000\nactive_file 7\n")


def write_v1(root: Path, folder: str, limit: str) -> None:
    write(root, f"{V1}{folder}/memory.limit_in_bytes", f"{limit}\n")
    write(root, f"{V1}{folder}/memory.usage_in_bytes", "5000\n")
    write(root, f"{V1}{folder}/memory.stat", "inactive_file 3\ntotal_inactive_file 1000\n")


def test_without_a_control_group_the_machine_is_the_limit(root: Path):
    assert host_memory(root) == MACHINE


def test_files_that_can_be_dropped_do_not_count(root: Path):
    write(root, "proc/self/cgroup", "0::/pods/a\n")
    write_v2(root, "/pods/a", "9000")
    assert host_memory(root) == HostMemory(4000, 9000)


def test_the_lowest_limit_on_the_path_counts(root: Path):
    write(root, "proc/self/cgroup", "0::/pods/a\n")
    write_v2(root, "/pods/a", "max")
    write_v2(root, "/pods", "8000")
    write_v2(root, "/other", "7000")
    assert host_memory(root) == HostMemory(4000, 8000)


def test_the_group_of_a_container_may_lie_at_the_mount(root: Path):
    write(root, "proc/self/cgroup", "5:cpu,memory:/docker/123\n4:pids:/docker/123\n")
    write_v1(root, "", "9000")
    assert host_memory(root) == HostMemory(4000, 9000)


@pytest.mark.parametrize("limit", ["9223372036854771712", str(MACHINE.limit)])
def test_a_limit_that_is_none_is_not_taken_for_one(root: Path, limit: str):
    write(root, "proc/self/cgroup", "5:memory:/a\n0::/a\n")
    write_v1(root, "/a", limit)
    write_v2(root, "/a", "max")
    assert host_memory(root) == MACHINE


def test_this_machine_has_memory_in_use_and_more_than_that():
    memory = host_memory()
    assert 0 < memory.used < memory.limit


@pytest.mark.parametrize("content", [None, "", "MemTotal: 1000 kB\n", "MemTotal: a lot\n"])
def test_without_information_of_the_system_its_physical_memory_is_the_limit(
    tmp_path: Path, content: str | None
):
    if content is not None:
        write(tmp_path, "proc/meminfo", content)
    memory = host_memory(tmp_path)
    assert 0 < memory.used < memory.limit
    assert memory.limit == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
