"""Commands in documents, the Makefile and the benches exist and accept their flags."""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{n}.md" for n in ("benchmarks", "gpu-trial", "operations", "training")),
]
COMMAND = re.compile(r"python3? -m (bench[\w.]*)([^`#|\n]*)")
FLAGS_OF_A_BENCH = re.compile(r"`(--[^`]*(?:--loads|--pairs|--file|--swap)[^`]*|--swap)`")
ENGINES = re.compile(r"bench\.rivals\..*|bench\.embedding\.bare_loop")
"""Modules that only benches start, in environments of their own."""


def shown(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace("\\\\\n", " ").replace("\\\n", " ")


def commands_of_makefile() -> list[tuple[str, str]]:
    rivals = "RIVALS=ctranslate2,sentence-transformers,infinity"
    command = ["make", "--dry-run", "--always-make", "bench", "DATA_DIR=DATA_DIR", rivals]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    output = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    return COMMAND.findall(output.replace("\\\n", " "))


def named_commands() -> list[tuple[str, str]]:
    texts = [shown(ROOT / name) for name in DOCUMENTS]
    texts += [shown(path) for path in sorted((ROOT / "bench").rglob("*.py"))]
    found = [command for text in texts for command in COMMAND.findall(text)]
    return [(m, flags) for m, flags in found + commands_of_makefile() if not ENGINES.fullmatch(m)]


def flags_beside_a_command() -> list[tuple[str, str]]:
    """Flags that a section of docs/benchmarks.md adds to its command."""
    sections = shown(ROOT / "docs/benchmarks.md").split("\n## ")
    return [
        (COMMAND.findall(section)[0][0], f"--data-dir DATA_DIR {flags}")
        for section in sections
        for flags in FLAGS_OF_A_BENCH.findall(section)
    ]


def parser_of(module: str) -> ArgumentParser:
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    is_package = spec.submodule_search_locations is not None
    found = importlib.import_module(f"{module}.__main__" if is_package else module)
    assert found.__file__ is not None
    assert 'if __name__ == "__main__":' in Path(found.__file__).read_text(encoding="utf-8")
    parser = found.build_parser()
    assert isinstance(parser, ArgumentParser)
    return parser


@pytest.mark.parametrize(
    ("module", "flags"), sorted({*named_commands(), *flags_beside_a_command()})
)
def test_a_command_that_is_named_exists_and_takes_its_flags(module: str, flags: str):
    parser_of(module).parse_args(shlex.split(flags))


def test_commands_are_found_in_documents_and_the_makefile():
    modules = {module for module, _ in named_commands()}
    assert {"bench.translation", "bench.embedding", "bench.quality", "bench.gpu"} <= modules
    assert {module for module, _ in commands_of_makefile()} >= {
        "bench.translation",
        "bench.embedding",
        "bench.serving.bulk",
        "bench.serving.overhead",
    }
    assert len(flags_beside_a_command()) > 5


@pytest.mark.parametrize("module", ["bench.translation", "bench.serving.memory"])
def test_a_bench_says_how_it_is_used(module: str):
    command = [sys.executable, "-m", module, "--help"]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "--data-dir" in found


@pytest.mark.parametrize("flags", ["--loads saturated,nothing", "--rivals nobody", "--pears 3"])
def test_a_flag_that_does_not_exist_is_refused(flags: str):
    with pytest.raises(SystemExit):
        parser_of("bench.translation").parse_args(["--data-dir=x", *flags.split()])
