import os
from pathlib import Path

import pytest
from attendant_server.system import processors as host_processors
from attendant_server.system.processors import cpu_quota, num_processors, processor_ids

V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu"


@pytest.fixture(autouse=True)
def large_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretends that the machine has 32 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)), raising=False)


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def write_v2(root: Path, folder: str, quota: str, period: int = 100_000) -> None:
    write(root, f"{V2}{folder}/cpu.max", f"{quota} {period}\n")


def write_v1(root: Path, folder: str, quota: int, period: int = 100_000) -> None:
    write(root, f"{V1}{folder}/cpu.cfs_quota_us", f"{quota}\n")
    write(root, f"{V1}{folder}/cpu.cfs_period_us", f"{period}\n")


def test_without_a_control_group_all_processors_are_used(tmp_path: Path):
    assert cpu_quota(tmp_path) is None
    assert num_processors(tmp_path) == 32


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        ("100000", 100_000, 1),
        ("400000", 100_000, 4),
        ("50000", 100_000, 1),
        ("150000", 100_000, 1),
        ("20000", 10_000, 2),
        ("6400000", 100_000, 32),
        ("max", 100_000, 32),
    ],
)
def test_the_quota_of_a_group_of_version_2_bounds_the_processors(
    tmp_path: Path, quota: str, period: int, expected: int
):
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write_v2(tmp_path, "", quota, period)
    assert num_processors(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [(100_000, 1), (250_000, 2), (-1, 32)])
def test_the_quota_of_a_group_of_version_1_bounds_the_processors(
    tmp_path: Path, quota: int, expected: int
):
    write(tmp_path, "proc/self/cgroup", "3:cpuset:/\n4:cpu,cpuacct:/docker/123\n")
    write_v1(tmp_path, "", quota)
    assert num_processors(tmp_path) == expected


def test_the_lowest_quota_on_the_path_counts(tmp_path: Path):
    write(tmp_path, "proc/self/cgroup", "4:cpu:/a/b\n0::/pods/a\n")
    write_v2(tmp_path, "/pods/a", "max")
    write_v2(tmp_path, "/pods", "300000")
    write_v1(tmp_path, "/a/b", 700_000)
    write_v1(tmp_path, "/a", 500_000)
    assert cpu_quota(tmp_path) == 3.0


def test_files_of_another_form_are_no_quota(tmp_path: Path):
    write(tmp_path, "proc/self/cgroup", "4:cpu:/\n0::/\n")
    write(tmp_path, f"{V2}/cpu.max", "100000\n")
    write_v1(tmp_path, "", 100_000, period=0)
    assert cpu_quota(tmp_path) is None


def test_where_there_is_no_affinity_all_processors_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert processor_ids() == [0, 1, 2]
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert num_processors(tmp_path) == 1


def test_affinity_below_the_quota_is_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_processors, "processor_ids", lambda: [4, 6])
    write(tmp_path, "proc/self/cgroup", "0::/\n")
    write_v2(tmp_path, "", "400000")
    assert num_processors(tmp_path) == 2
