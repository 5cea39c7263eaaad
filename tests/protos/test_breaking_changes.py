"""The comparison of the contract with that of the last release."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = ROOT / "build" / "buf" / "node_modules" / ".bin" / "buf"
FIELD = "  optional uint32 beam_size = 1;\n"


class Clone:
    """A repository of the contract alone, and the comparison in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        protos = folder / "protos"
        shutil.copytree(
            ROOT / "protos", protos, ignore=shutil.ignore_patterns("generated", "python")
        )
        self.translation = protos / "attendant" / "v1" / "translation.proto"
        self.git("init", "--quiet")
        self.commit("First")

    def git(self, *arguments: str) -> None:
        own = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        # Variables of a hook that runs these tests would choose another repository.
        names = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", *own, *arguments]
        subprocess.run(command, cwd=self.folder, env=names, check=True, capture_output=True)

    def commit(self, message: str) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def replace(self, old: str, new: str) -> None:
        text = self.translation.read_text(encoding="utf-8")
        assert old in text
        self.translation.write_text(text.replace(old, new), encoding="utf-8")

    def compare(self) -> subprocess.CompletedProcess[str]:
        names = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        return subprocess.run(
            [self.folder / "protos" / "check_breaking.sh", BUF],
            env=names,
            capture_output=True,
            encoding="utf-8",
        )


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture
def needs_buf() -> None:
    if not BUF.exists():
        pytest.skip("NOT CHECKED: no buf; 'make check' installs some")


def test_without_a_release_nothing_is_compared(clone: Clone):
    clone.git("tag", "a-tag-of-something-else")
    done = clone.compare()
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("NOT CHECKED: ")


BREAKING: dict[str, Callable[[Clone], None]] = {
    "a removed field": lambda clone: clone.replace(FIELD, ""),
    "a field with another number": lambda clone: clone.replace(FIELD, FIELD.replace("1", "99")),
    "a field with another type": lambda clone: clone.replace(
        FIELD, FIELD.replace("uint32", "string")
    ),
    "another name in JSON": lambda clone: clone.replace(FIELD, FIELD.replace("beam_size", "beams")),
    "a removed value": lambda clone: clone.replace("  FINISH_REASON_LENGTH = 2;\n", ""),
    "a removed method": lambda clone: clone.replace(
        "  rpc Score(ScoreRequest) returns (ScoreResponse);\n", ""
    ),
}


@pytest.mark.parametrize("kind", BREAKING)
@pytest.mark.parametrize("tag", ["0.1.0", "v0.1.0"])
@pytest.mark.usefixtures("needs_buf")
def test_a_change_that_breaks_clients_of_the_release_is_refused(clone: Clone, kind: str, tag: str):
    clone.git("tag", tag)
    clone.commit("Work goes on")
    BREAKING[kind](clone)
    done = clone.compare()
    assert done.returncode == 1
    assert f"clients of release {tag}" in done.stderr
    assert "protos/attendant/v1/translation.proto" in done.stdout


@pytest.mark.usefixtures("needs_buf")
def test_additions_and_reserved_fields_are_allowed_and_later_releases_count(clone: Clone):
    clone.git("tag", "0.1.0")
    clone.replace(FIELD, FIELD + "  optional uint32 other = 99;\n")
    assert clone.compare().returncode == 0
    clone.commit("Add a field")
    clone.git("tag", "0.2.0")
    clone.replace("  optional uint32 other = 99;\n", "")
    assert clone.compare().returncode == 1
    clone.replace(FIELD, FIELD + '  reserved 99;\n  reserved "other";\n')
    assert clone.compare().returncode == 0
