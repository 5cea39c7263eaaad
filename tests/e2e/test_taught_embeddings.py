"""Distillation of embeddings as a command, with a server of a built-in bundle as the teacher."""

import csv
from pathlib import Path

import pytest
from attendant_export.__main__ import main
from attendant_export.runs.records import read_run_record

from tests.support.made_pairs import made_lines

BUILT_IN = Path(__file__).parents[2] / "bundles"
TEACHER = next((BUILT_IN / "bert-en-de").iterdir())


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    pairs = made_lines()
    (tmp_path / "train.tsv").write_text("".join(pairs[1:]))
    (tmp_path / "valid.tsv").write_text(pairs[0])
    (tmp_path / "more.txt").write_text("Mary often sleeps.\nA man waits here.\n")
    sizes = "--vocab-size 120 --d-model 16 --num-heads 2 --d-feed-forward 32 --num-layers 1"
    limits = "--max-tokens 12 --contrastive-max-steps 40 --contrastive-validate-every-steps 20"
    schedule = "--dropout 0 --contrastive-warmup-steps 5 --contrastive-learning-rate 5e-3"
    return [
        *f"train-bert --data-dir {tmp_path} --run-dir {tmp_path / 'run'} --num-threads 1".split(),
        *f"--train train.tsv --valid valid.tsv --text more.txt {sizes}".split(),
        *f"{limits} {schedule}".split(),
    ]


def test_a_student_learns_the_vectors_of_a_bundle(command: list[str], tmp_path: Path) -> None:
    main([*command, f"--teacher={TEACHER}", "--teacher-text=more.txt", "--hard-negatives=2"])

    with (tmp_path / "run" / "history.csv").open() as file:
        first, last = csv.DictReader(file)
    assert float(last["teacher_cosine"]) > float(first["teacher_cosine"])
    assert float(last["training_loss"]) < float(first["training_loss"])
    recipe = read_run_record(tmp_path / "run").recipe
    assert f"the teacher bert-en-de/{TEACHER.name}, licence CC-BY-SA-4.0: its vectors" in recipe
    assert "those of more.txt" in recipe
    assert "2 pairs that it finds similar" in recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher", str(next((BUILT_IN / "en-de").iterdir()))], "is no embedding model"),
        (["--teacher", "nowhere"], "nowhere is not a bundle"),
        (["--hard-negatives", "2"], "--hard-negatives: needs --teacher"),
        (["--distillation-weight", "2"], "--distillation-weight: needs --teacher"),
        (["--teacher-text", "more.txt"], "--teacher-text: needs --teacher"),
        (["--teacher", str(TEACHER), "--teacher-text", "none.txt"], "none.txt: no such file"),
        (["--hard-negatives", "-1"], "-1 is not an integer of at least 0"),
    ],
)
def test_a_bad_teacher_is_refused_before_anything_is_trained(
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, *options])
    assert ended.value.code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
