"""The trial on a GPU, as far as a CPU can try it: figures at once, limits, and failures."""

import json
import re
import signal
import subprocess
import sys
from argparse import ArgumentTypeError
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.__main__ import LIMITS, main, run_stage, stages_of
from bench.gpu.correctness import GPU_TESTS
from bench.gpu.made_texts import made_up_texts, made_up_words
from bench.gpu.stage import MODULES
from bench.gpu.trial import Trial

ROOT = Path(__file__).parents[3]
TRIAL = [sys.executable, "-m", "bench.gpu", "--smoke"]


def lines_of(shown: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shown.splitlines()]


def ends_of(lines: list[dict[str, Any]]) -> dict[str, str]:
    return {line["stage"]: line["ended"] for line in lines if "ended" in line}


def test_words_are_different_and_texts_are_as_long_as_asked():
    assert len(set(made_up_words(100))) == 100
    assert {len(text.split()) for text in made_up_texts(20, num_words=7)} == {7}
    assert made_up_texts(20) == made_up_texts(20)
    assert {len(text.split()) for text in made_up_texts(200)} <= set(range(3, 61))


def test_a_part_that_fails_is_reported_and_the_next_one_is_measured(capsys):
    trial = Trial("speed", seconds=60)

    def fail(reason: str) -> dict[str, int]:
        raise RuntimeError(reason)

    def end() -> dict[str, int]:
        raise SystemExit("did not start")

    trial.part("first", fail, "no\nmemory")
    trial.part("second", end)
    trial.part("third", lambda: {"rate": 3})

    first, second, third = lines_of(capsys.readouterr().out)
    assert (first["part"], first["error"]) == ("first", "RuntimeError: no memory")
    assert second["error"] == "SystemExit: did not start"
    assert (third["stage"], third["rate"]) == ("speed", 3)
    assert trial.num_failed == 2


def test_no_part_begins_after_the_time_limit(capsys):
    trial = Trial("speed", seconds=0)
    trial.part("late", pytest.fail, "was measured")
    (line,) = lines_of(capsys.readouterr().out)
    assert line["skipped"] == "no time is left"
    assert trial.num_failed == 1


def test_stages_have_limits_that_the_command_line_may_replace():
    assert LIMITS.keys() == MODULES.keys()
    assert stages_of("speed,starts:7.5") == [("speed", LIMITS["speed"]), ("starts", 7.5)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (",", "want at least one of starts, "),
        ("starts,sped", "sped is not one of starts, "),
        ("starts:long", "starts:long: long is not a number"),
        ("starts:0", "starts:0: want a finite number of seconds above 0"),
        ("starts:nan", "starts:nan: want a finite number of seconds above 0"),
    ],
)
def test_a_bad_list_of_stages_is_refused(text: str, problem: str):
    with pytest.raises(ArgumentTypeError, match=re.escape(problem)):
        stages_of(text)


def test_a_stage_reports_its_figures_and_the_next_one_ends_at_its_limit():
    stages = "--stages=starts:60,bundles:0.1"
    ended = subprocess.run([*TRIAL, stages], cwd=ROOT, capture_output=True, text=True)
    lines = lines_of(ended.stdout)
    assert ends_of(lines) == {"starts": "ok", "bundles": "time limit"}
    assert ended.returncode == 1
    found = {line["part"]: line for line in lines if "part" in line}
    assert found["one product"]["relative_error"] < 1e-3
    assert found["one step"]["shape"] == [4, 2]
    assert found["one translation"]["text"] == "Wo ist der nächste Bahnhof?"


def test_a_signal_ends_the_stage_that_runs_and_the_trial():
    with subprocess.Popen([*TRIAL, "--stages=starts"], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["part"] == "versions"
        (stage,) = map(int, children_of(process.pid))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not running_in(stage)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def running_in(group: int) -> list[str]:
    """Processes of a group that have not ended; ended ones may wait for their parent."""
    running = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, found, *_ = path.read_text().rpartition(")")[2].split()
            if int(found) == group and state not in "ZX":
                running.append(path.parent.name)
    return running


def test_a_stage_that_cannot_begin_has_failed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert run_stage("starts", 10, is_smoke=True) == "failed"


def test_the_files_with_tests_for_a_gpu_are_those_that_the_trial_runs():
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.gpu" in path.read_text(encoding="utf-8") and path != Path(__file__)
    }
    assert marked == set(GPU_TESTS)


def test_stages_do_not_begin_once_the_time_of_all_is_over(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench.gpu", "--seconds=0", "--stages=starts,speed"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert set(ends_of(lines_of(capsys.readouterr().out)).values()) == {"no time is left"}


@pytest.mark.slow
def test_all_stages_run_on_a_cpu():
    ended = subprocess.run(TRIAL, cwd=ROOT, capture_output=True, text=True)
    lines = lines_of(ended.stdout)
    assert ends_of(lines) == dict.fromkeys(MODULES, "ok"), lines
