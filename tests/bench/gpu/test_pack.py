import subprocess
from pathlib import Path

import pytest

from bench.gpu import pack

ROOT = Path(__file__).parents[3]
FILES = (
    "bench/a.py",
    "bundles/en-de/3/weights.int8.bin",
    "bundles/en-de/3/weights.fp16.bin",
    "docs/b.md",
    "tests/server/c.py",
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        name = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", "-C", tmp_path, *name, *arguments], check=True, capture_output=True)

    git("init")
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("1234")
    (tmp_path / ".gitignore").write_text("/.gpu/\n")
    git("add", ".")
    git("commit", "-m", "first")
    return tmp_path


def present(repository: Path) -> set[str]:
    return {file for file in FILES if (repository / file).exists()}


def test_what_a_trial_does_not_read_is_left_out_and_brought_back(repository: Path):
    pack.keep_only(repository, pack.CODE)
    assert present(repository) == {"bench/a.py", "tests/server/c.py"}
    pack.keep_only(repository, [*pack.CODE, *pack.BUNDLES])
    assert present(repository) == set(FILES) - {"docs/b.md", "tests/server/c.py"}
    pack.restore(repository)
    assert present(repository) == set(FILES)


def test_sizes_are_those_of_present_files_and_of_named_ignored_ones(repository: Path):
    pack.keep_only(repository, pack.CODE)
    (repository / ".gpu").mkdir()
    (repository / ".gpu/ort").write_text("12345678")
    (repository / "new").write_text("1")
    assert pack.carried(repository) == {"bench": 4, "tests": 4, ".gitignore": 7, "new": 1}
    assert pack.carried(repository, Path(".gpu"))[".gpu"] == 8


def test_what_a_trial_reads_exists():
    wanted = [pattern for pattern in (*pack.CODE, *pack.BUNDLES) if pattern.startswith("/b")]
    assert len(wanted) == 3
    assert all((ROOT / pattern.lstrip("/")).exists() for pattern in wanted)


def test_a_runtime_that_was_not_packed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["pack", "runtime"])
    with pytest.raises(SystemExit, match=r"\.gpu/ort\.tar\.xz does not exist"):
        pack.main()
