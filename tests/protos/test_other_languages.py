"""The set-ups of docs/other-languages.md and calls of docs/api.md, run against a real server."""

import os
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
REFERENCE = ROOT / "docs" / "api.md"
GRPC_TOOLS = ROOT / ".venv-protos" / "bin" / "python"
BUF = ROOT / "build" / "buf" / "node_modules" / ".bin" / "buf"
NODE_MODULES = ROOT / "build" / "node" / "node_modules"
METHODS = ["Translate", "StreamTranslate", "Embed", "Similarity", "FillMask"]
"""The methods that have calls in all languages."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Section(NamedTuple):
    """The tools that the commands of a section need, and what their output must have."""

    tools: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    label: str = ""
    """The label of the language's calls in the reference; empty for none."""


TRANSLATION = "Bahnhof"
"""A word of the translation that is the same on all processors."""
PRINTED = (
    rf"(?s)\b{TRANSLATION}\b.*\b{TRANSLATION}\b",  # as a whole and streamed
    r"(?m)^\W*2\W+256\b",
    r"(?m)^\W*1\W+0\W+0\.\d+",
    r"(?m)^(\w+ \d(\.\d+)?(e-?\d+)?\n){3}",
)
"""The output of the calls of a program."""
JSON = (
    *(rf"(?s)\b{TRANSLATION}\b.*\"delta\"", '"embeddings"'),
    *(r'(?s)"indices": \[\s*1,\s*0\s*\]', r'(?s)("probability".*){3}'),
)
"""The output of the calls of a program that prints answers as JSON."""
SECTIONS = {
    "Python": Section(("python",), (*PRINTED, r"\(1, 256\)"), label="Python"),
    "protoc": Section(("protoc",), files=("attendant.binpb",)),
    "buf": Section(("buf",), JSON, ("attendant.binpb",), "buf"),
    "Node": Section(("node", "@grpc/grpc-js"), PRINTED, label="Node, @grpc/grpc-js"),
    "Node with Connect": Section(
        ("node", "buf", "@connectrpc/connect-node"),
        PRINTED,
        ("gen/attendant/v1/translation_pb.d.ts",),
        "Node, @connectrpc/connect-node",
    ),
    "Go": Section(
        ("protoc", "protoc-gen-go", "protoc-gen-go-grpc", "go"),
        PRINTED,
        ("gen/attendant/v1/text.pb.go", "gen/attendant/v1/translation_grpc.pb.go"),
        "Go",
    ),
    "Java and Kotlin": Section(
        ("protoc", "protoc-gen-grpc-java", "javac", "CLASSPATH"),
        PRINTED,
        ("gen/attendant/v1/Hypothesis.java", "gen/attendant/v1/ModelServiceGrpc.java"),
        "Java",
    ),
    "grpcurl": Section(("grpcurl",), JSON, label="grpcurl"),
}
PROGRAMS = {
    "python": "python - <<'END'\n{}END\n",
    "js": "node - <<'END'\n{}END\n",
    "mjs": "node --input-type=module - <<'END'\n{}END\n",
    "go": "cat > main.go <<'END'\n{}END\n[ -e go.mod ] || go mod init example.com/yours\n"
    "go mod tidy\ngo run .\n",
    "java": "cat > Calls.java <<'END'\n{}END\n"
    'javac -d classes $(find gen -name "*.java") Calls.java\njava -cp "classes:$CLASSPATH" Calls\n',
}
"""Commands that run the code of a block, by its language."""


def calls(label: str) -> list[str]:
    """The calls of a language in the reference, in the order of the methods."""
    _, _, gallery = REFERENCE.read_text(encoding="utf-8").partition("\n## Calls\n")
    found = []
    for method in METHODS:
        _, _, section = gallery.partition(f"\n### Calls of {method}\n")
        _, _, labelled = section.partition(f"\n**{label}**\n")
        block = BLOCK.search(labelled)
        assert block, f"{method} has no call in {label}"
        found.append(block[2])
    return found


def with_calls(kind: str, code: str, calls: list[str]) -> str:
    """The code of a set-up, continued by calls."""
    if kind not in ("python", "sh"):
        calls = [f"{{\n{call}}}\n" for call in calls]  # calls use the same names
    joined = "".join(calls)
    before, marker, after = code.partition("// Calls\n")
    return before + joined + after if marker else code + joined


def commands(heading: str) -> str:
    """The shell commands of a section with its calls, except those that install its tools."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    blocks = BLOCK.findall(section.partition("\n## ")[0])
    blocks = [(kind, code) for kind, code in blocks if not re.match(r"(npm|go) install", code)]
    label = SECTIONS[heading].label
    kinds = [kind for kind, _ in blocks]
    # The first program is the set-up. Without one, calls are commands.
    set_up = next((i for i, kind in enumerate(kinds) if kind != "sh"), len(kinds) - 1)
    scripts = []
    for i, (kind, code) in enumerate(blocks):
        whole = with_calls(kind, code, calls(label)) if label and i == set_up else code
        scripts.append(whole if kind == "sh" else PROGRAMS[kind].replace("{}", whole))
    return "".join(scripts)


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


def test_every_call_of_the_reference_is_run():
    _, _, gallery = REFERENCE.read_text(encoding="utf-8").partition("\n## Calls\n")
    gallery = gallery.partition("\n## ")[0]
    assert re.findall(r"^### Calls of (\w+)$", gallery, re.MULTILINE) == METHODS
    labels = {section.label for section in SECTIONS.values() if section.label}
    run = [call for label in labels for call in calls(label)]
    assert sorted(run) == sorted(code for _, code in BLOCK.findall(gallery))


def is_missing(tool: str) -> bool:
    """Whether a program, a package of Node or an environment variable is missing."""
    if tool.startswith("@"):
        return not (NODE_MODULES / tool).exists()
    return tool not in os.environ if tool.isupper() else shutil.which(tool) is None


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("heading", SECTIONS)
def test_the_commands_of_a_section_do_what_they_say(tmp_path: Path, address: str, heading: str):
    section = SECTIONS[heading]
    missing = list(filter(is_missing, section.tools))
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
    for output in section.outputs:
        assert re.search(output, done.stdout), f"{output} is not in {done.stdout}"
    assert all((tmp_path / name).stat().st_size for name in section.files)
