import os
import subprocess
import sys

import pytest
from attendant_export.__main__ import main
from attendant_export.commands import run


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--max-batch-tokens=0", "0 is not an integer of at least 1"),
        ("--vocab-size=0", "0 is not an integer of at least 1"),
        ("--num-heads=0", "0 is not an integer of at least 1"),
        ("--num-encoder-layers=-1", "-1 is not an integer of at least 1"),
        ("--num-decoder-layers=2.5", "2.5 is not an integer of at least 1"),
        ("--d-model=wide", "wide is not an integer of at least 1"),
        ("--num-threads=0", "0 is not an integer of at least 1"),
        ("--max-steps=0", "0 is not an integer of at least 1"),
        ("--max-minutes=0", "0 is not a number above 0"),
        ("--max-minutes=inf", "inf is not a number above 0"),
        ("--learning-rate=nan", "nan is not a number above 0"),
        ("--label-smoothing=-0.1", "-0.1 is not a number from 0 to 1"),
        ("--dropout=1", "1 is not a number from 0 to below 1"),
        ("--seed=4294967296", "4294967296 is not an integer from 0 to 4294967295"),
        ("--precision=int8", "invalid choice: 'int8'"),
    ],
)
def test_an_option_out_of_its_range_is_refused_with_the_range(option, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train-translation", "--data-dir=.", f"--run-dir={tmp_path / 'run'}", option])

    assert ended.value.code == 2
    assert f"argument {option.split('=')[0]}: {message}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_curves_whose_library_is_missing_name_the_extra(tmp_path, monkeypatch, capsys):
    for name in ("train.tsv", "valid.tsv"):
        (tmp_path / name).write_text("a\tb\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    command = f"train-translation --data-dir {tmp_path} --run-dir {tmp_path / 'run'} --tensorboard"

    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--train=train.tsv", "--valid=valid.tsv"])

    assert ended.value.code == 2
    assert "needs the extra attendant-export[tensorboard]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_interrupt_outside_of_a_training_prints_one_line(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setitem(run.COMMANDS, "inspect", interrupt)

    with pytest.raises(SystemExit) as ended:
        main(["inspect", "bundle"])

    assert ended.value.code == 130
    assert capsys.readouterr().err == "attendant-export: stopped by SIGINT\n"


@pytest.mark.parametrize(
    ("given", "used"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")]
)
def test_threads_sleep_while_they_wait_unless_the_environment_says_otherwise(given, used):
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | given
    program = "import attendant_export.__main__, os; print(os.environ['OMP_WAIT_POLICY'])"

    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert printed.strip() == used
