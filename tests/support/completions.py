"""What shells propose for the beginning of a command line, by the scripts of the commands."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
registered=$(complete -p "$1")
registered=${registered#* -F }
${registered% *}
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""Calls the function that the script registers, as bash does."""


def script_of(
    main: Callable[[list[str]], object], shell: str, capsys: pytest.CaptureFixture[str], path: Path
) -> Path:
    """The file with the script of a command for a shell; ``main`` runs the command."""
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert ended.value.code == 0
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


def completed_by_bash(script: Path, *words: str) -> list[str]:
    """What bash proposes for the last word; no words before it may be missing."""
    command = ["bash", "--norc", "-euc", COMPLETE, "bash", str(script), *words]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()
