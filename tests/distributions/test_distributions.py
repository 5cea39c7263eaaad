"""The distributions: what `make dist` builds, and whether it can be installed and used."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
TRIAL = Path(__file__).with_name("trial.py")
TORCH = re.search(r"^TORCH := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
MEMBERS = {
    "attendant_protos": ROOT / "protos",
    "attendant_server": ROOT / "server",
    "attendant_export": ROOT / "export",
    "attendant_client": ROOT / "clients" / "python",
}
SOURCES = {
    "attendant_protos": ("generated/", "python/"),
    "attendant_server": ("",),
    "attendant_export": ("",),
    "attendant_client": ("",),
}
"""The folders of a member whose packages are in its wheel."""
pytestmark = pytest.mark.dist


@pytest.fixture(scope="session")
def tools() -> Path:
    if "DIST_TOOLS" not in os.environ:
        pytest.skip("NOT CHECKED: the distributions, since DIST_TOOLS names no folder of tools")
    return Path(os.environ["DIST_TOOLS"])


def make_dist(folder: Path, *variables: str) -> Path:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    command = ["make", "dist", f"PYTHON={sys.executable}", *variables]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return folder / "dist"


def files_of_git(*paths: str) -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return listed.splitlines()


@pytest.fixture(scope="session")
def dist(tools: Path) -> Path:
    return make_dist(ROOT)


@pytest.fixture(params=sorted(MEMBERS))
def member(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def wheel_of(dist: Path, member: str) -> Path:
    (path,) = dist.glob(f"{member}-*.whl")
    return path


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """The names and bytes of the files in a wheel or source distribution."""
    if path.suffix == ".whl":
        with ZipFile(path) as wheel:
            yield from ((name, wheel.read(name)) for name in wheel.namelist())
    else:
        with tarfile.open(path) as archive:
            for entry in archive.getmembers():
                file = archive.extractfile(entry)
                assert file is not None
                yield entry.name, file.read()


def metadata(path: Path) -> Message:
    text = next(data for name, data in contents(path) if name.endswith("dist-info/METADATA"))
    return HeaderParser().parsestr(text.decode())


def test_a_wheel_has_every_file_of_its_packages_and_no_other(dist: Path, member: str):
    folder = MEMBERS[member]
    prefixes = tuple(f"{folder.relative_to(ROOT)}/{source}" for source in SOURCES[member])
    packages = r"(attendant|attendant_\w+)/"
    expected = set()
    for prefix in prefixes:
        names = (name.removeprefix(prefix) for name in files_of_git(prefix))
        expected |= {name for name in names if re.match(packages, name)}
    found = {name for name, _ in contents(wheel_of(dist, member)) if ".dist-info/" not in name}
    if member == "attendant_protos":
        expected -= {name for name in expected if name.endswith(".proto")}
    assert found == expected
    assert any(name.endswith("/py.typed") for name in found)


def test_a_wheel_has_its_licences_and_describes_itself(dist: Path, member: str):
    described = metadata(wheel_of(dist, member))
    assert described["Description-Content-Type"] == "text/markdown"
    assert described["License-Expression"].startswith("Apache-2.0")
    assert "LICENSE" in described.get_all("License-File", [])
    assert described["Requires-Python"] == ">=3.11"
    assert described["Summary"]
    assert "Typing :: Typed" in described.get_all("Classifier", [])
    own = (ROOT / "LICENSE").read_bytes()
    licences = [data for name, data in contents(wheel_of(dist, member)) if "/licenses/" in name]
    assert own in licences
    assert len(licences) == (3 if member == "attendant_protos" else 1)


def test_no_distribution_has_tests_or_paths_of_the_machine_that_built_it(dist: Path, member: str):
    places = (str(ROOT).encode(), str(Path.home()).encode() + b"/")
    for path in dist.glob(f"{member}-*"):
        for name, data in contents(path):
            assert not re.search(r"(^|/)(tests?|conftest\.py|test_\w+\.py)(/|$)", name), name
            assert not any(place in data for place in places), f"{path.name}: {name}"


def test_the_same_commit_gives_the_same_bytes_in_another_folder(dist: Path, tools: Path, tmp_path):
    for name in files_of_git(
        "Makefile", ".gitignore", "protos", "server", "export", "clients/python"
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
        (tmp_path / name).chmod(0o600)
    (tmp_path / ".venv-dist").symlink_to(tools.parent)
    commit = ["git", "log", "-1", "--format=%ct"]
    time = subprocess.run(commit, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    again = make_dist(tmp_path, f"COMMIT_TIME={time.strip()}")
    assert len(list(again.iterdir())) == 2 * len(MEMBERS)
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {
        p.name: p.read_bytes() for p in dist.iterdir()
    }


def try_with(python: str, dist: Path, folder: Path, *flags: str) -> None:
    command = [python, "-I", str(TRIAL), str(dist), str(ROOT / "bundles"), str(folder), *flags]
    subprocess.run(command, cwd=folder, check=True, timeout=590)


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_client_and_server_are_installed_and_answer(dist: Path, tools: Path, tmp_path, version):
    find = [tools / "uv", "python", "find", "--no-python-downloads", "--no-project", version]
    found = subprocess.run(find, cwd=tmp_path, capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip(f"NOT CHECKED: Python {version}, which is not installed")
    try_with(found.stdout.strip(), dist, tmp_path)


def test_the_lowest_versions_that_are_allowed_work_together(dist: Path, tools: Path, tmp_path):
    try_with(sys.executable, dist, tmp_path, "--uv", str(tools / "uv"))


def test_the_exporter_is_installed_and_reads_a_bundle(dist: Path, tmp_path):
    assert TORCH is not None
    try_with(sys.executable, dist, tmp_path, "--torch", TORCH[1])
