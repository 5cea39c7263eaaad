"""The commands of docs/other-languages.md, run unchanged against a real server."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from attendant_server.settings import Settings

from tests.support.serving import LoopThread, running_server

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "other-languages.md"
GRPC_TOOLS = ROOT / ".venv-protos" / "bin" / "python"
BUF = ROOT / "build" / "buf" / "node_modules" / ".bin" / "buf"
NODE_MODULES = ROOT / "build" / "node" / "node_modules"


class Section(NamedTuple):
    """The tools that the commands of a section need, and their expected output."""

    tools: tuple[str, ...]
    output: str = ""
    files: tuple[str, ...] = ()


TRANSLATION = "Bahnhof"
"""A word of the translation that is the same on all processors."""
TRANSLATIONS = rf"{TRANSLATION}.*\n.*{TRANSLATION}.*\n"
SECTIONS = {
    "Python": Section(("python",), rf"{TRANSLATIONS}\(2, 256\)"),
    "protoc": Section(("protoc",), files=("attendant.binpb",)),
    "buf": Section(("buf",), rf'(?s){TRANSLATION}.*"delta".*"embeddings"', ("attendant.binpb",)),
    "Node": Section(("node",), rf"{TRANSLATIONS}\[ 2, 256 \] 512"),
    "Go": Section(
        ("protoc", "protoc-gen-go", "protoc-gen-go-grpc"),
        files=("gen/attendant/v1/text.pb.go", "gen/attendant/v1/translation_grpc.pb.go"),
    ),
    "Java and Kotlin": Section(
        ("protoc", "protoc-gen-grpc-java"),
        files=("gen/attendant/v1/Hypothesis.java", "gen/attendant/v1/ModelServiceGrpc.java"),
    ),
    "grpcurl": Section(("grpcurl",), rf'(?s){TRANSLATION}.*"delta".*"embeddings"'),
}


def commands(heading: str) -> str:
    """The shell commands of a section, except those that install its tools."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    found = re.findall(r"^```(sh|js|python)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    programs = {"js": "node", "python": "python"}
    scripts = [
        f"{programs[kind]} - <<'END'\n{code}END\n" if kind in programs else code
        for kind, code in found
    ]
    return "".join(code for code in scripts if not re.match(r"(npm|go) install", code))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server with the built-in models that the page uses."""
    settings = Settings(
        bundles=ROOT / "bundles",
        models=("bert-en-de", "en-de"),
        host="127.0.0.1",
        port=0,
        metrics_port=-1,
        lame_duck_seconds=0.0,
    )
    loop = LoopThread()
    try:
        with running_server(loop, settings) as running:
            yield f"127.0.0.1:{running.server.port}"
    finally:
        loop.close()


def write_program(path: Path, *command: str) -> None:
    """Write a shell script that runs a command with its arguments."""
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The search path of the tools: that of this machine plus the folders of ``make check``."""
    programs = tmp_path / "bin"
    programs.mkdir()
    write_program(programs / "python", sys.executable)
    if BUF.exists():
        (programs / "buf").symlink_to(BUF)
    if GRPC_TOOLS.exists() and shutil.which("protoc") is None:
        write_program(programs / "protoc", str(GRPC_TOOLS), "-m", "grpc_tools.protoc")
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return str(programs)


def test_every_section_of_the_page_is_run():
    headings = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == list(SECTIONS)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("heading", SECTIONS)
def test_the_commands_of_a_section_do_what_they_say(tmp_path: Path, address: str, heading: str):
    section = SECTIONS[heading]
    missing = [tool for tool in section.tools if shutil.which(tool) is None]
    if heading == "Node" and not NODE_MODULES.exists():
        missing.append("@grpc/grpc-js")
    if missing:
        pytest.skip(f"NOT CHECKED: no {', '.join(missing)}; 'make check' installs some")
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    script = commands(heading).replace("localhost:50051", address)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(section.output, done.stdout)
    assert all((tmp_path / name).stat().st_size for name in section.files)
