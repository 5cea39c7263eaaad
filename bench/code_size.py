"""Size of the hand-written code: function lengths, files.

    python -m bench.code_size

A function's length is ``end_lineno - lineno + 1``, its docstring included.
"""

import ast
import statistics
from pathlib import Path

MEMBERS = ("server", "export", "clients", "bench", "deploy", "tests")


def function_lengths(path: Path) -> list[tuple[int, str]]:
    """(length, name) of all functions and methods of a Python file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.name}")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def describe(files: list[Path]) -> str:
    """One line about some files."""
    lengths = sorted(length for path in files for length, _ in function_lengths(path))
    longest_function = max(entry for path in files for entry in function_lengths(path))
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    longest_file = max(lines, key=lambda path: lines[path])
    median, ninth_decile = statistics.median(lengths), lengths[int(0.9 * len(lengths))]
    return (
        f"{len(files)} files, {sum(lines.values())} lines, longest {longest_file} "
        f"({lines[longest_file]}); {len(lengths)} functions, median {median:g}, "
        f"90th percentile {ninth_decile}, longest {longest_function[1]} ({longest_function[0]})"
    )


def main() -> None:
    """Print a line for the code of each member, for all code, and for the tests."""
    groups = {name: sorted(Path(name).rglob("*.py")) for name in MEMBERS}
    groups = {name: [p for p in files if p.stat().st_size] for name, files in groups.items()}
    code = [path for name in MEMBERS if name != "tests" for path in groups[name]]
    for name, files in {**groups, "all but tests": code}.items():
        print(f"{name}: {describe(files)}")


if __name__ == "__main__":
    main()
