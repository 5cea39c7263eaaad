"""Completion of `attendant` in shells."""

import shutil
import subprocess
import sys

import pytest
from attendant_client.__main__ import main

from tests.support.completions import completed_by_bash, script_of


@pytest.fixture
def bash(capsys, tmp_path):
    script = script_of(main, "bash", capsys, tmp_path / "completion")
    return lambda *words: completed_by_bash(script, *words)


def test_bash_completes_commands(bash):
    assert bash("attendant", "emb") == ["embed", "embed-sparse"]


def test_bash_completes_the_flags_of_the_chosen_command(bash):
    assert bash("attendant", "translate", "--ali") == ["--alignments"]
    assert bash("attendant", "embed", "--ali") == []
    assert bash("attendant", "--target", "host:1", "translate", "--mark") == ["--markup"]


def test_bash_completes_values(bash):
    assert bash("attendant", "translate", "--markup", "") == ["none", "html", "xml"]


def test_bash_completes_files(bash, tmp_path):
    (tmp_path / "terms.tsv").touch()
    assert bash("attendant", "translate", "--glossary-file", "te") == ["terms.tsv"]


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", "bash"])
    assert ended.value.code == 2
    assert "pip install 'attendant-client[completion]'" in capsys.readouterr().err


ZSH = r"""
zmodload zsh/zpty
zpty completing zsh -f
zpty -w completing "PS1=; TERM=dumb; autoload -Uz compinit; compinit -u -D"
zpty -w completing "eval \"\$(<$1)\"; echo 're''ady'"
while [[ $seen != *ready* ]]; do zpty -r completing seen || exit 1; done
zpty -w -n completing "attendant translate --align"$'\t'" END"
zpty -w completing ""
zpty -r completing line "*--alignments*END*"  # the terminal may echo what was typed before that
print -r -- "$line"
"""


@pytest.mark.shells
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_another_shell_completes_the_flags_of_a_command(shell, capsys, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"NOT CHECKED: completion in {shell}, which is not installed")
    script = script_of(main, shell, capsys, tmp_path / "completion")
    if shell == "fish":
        code = f"source {script}; complete --do-complete 'attendant translate --align'"
        command = ["fish", "--no-config", "-c", code]
    else:
        command = ["zsh", "-f", "-c", ZSH, "zsh", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert "--alignments" in done.stdout, done.stdout + done.stderr
