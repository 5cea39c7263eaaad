import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attendant_export.arguments import build_parser

from bench.gpu import training
from bench.gpu.training import MODELS, command_of, train

ROOT = Path(__file__).parents[3]
PAIRS = [("the dog sees the man", "der Hund sieht den Mann"), ("the man", "der Mann")] * 8
HISTORY = "step,bleu\n1,20.5\n2,31.25\n3,30.0\n"


def write_data(folder: Path) -> Path:
    for kind in ("train", "valid"):
        path = folder / f"tatoeba/tatoeba.en-de.{kind}.tsv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(f"{english}\t{german}\n" for english, german in PAIRS)
    return folder


@pytest.mark.parametrize("model", MODELS)
def test_the_exporter_takes_the_command_of_a_model_and_its_last_options(model: str):
    command = command_of(model, Path("data"), "cuda", 1.25, ["--dropout=0.3"])
    options = build_parser().parse_args(command[3:])
    assert (options.device, options.max_minutes, options.dropout) == ("cuda", 1.25, 0.3)
    assert options.swap == (model == "de-en")
    assert (options.train is not None) == (model == "en-fr")


def test_a_training_that_takes_too_long_is_told_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "FOLDER", tmp_path)
    (tmp_path / "runs/en-de").mkdir(parents=True)
    (tmp_path / "runs/en-de/history.csv").write_text(HISTORY)
    code = "import signal; print('begun', flush=True); signal.pause()"
    figures = train([sys.executable, "-c", code], "en-de", seconds=0.3)
    assert figures["ended"] == "time limit"
    assert (figures["best_bleu"], figures["validations"]) == (31.25, 3)
    assert figures["last"] == {"step": "3", "bleu": "30.0"}


def test_a_training_that_fails_has_its_exit_code_and_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(training, "FOLDER", tmp_path)
    figures = train([sys.executable, "-c", "raise SystemExit(3)"], "en-de", seconds=60)
    assert figures["ended"] == "exit code 3"
    assert "best_bleu" not in figures


@pytest.mark.slow
def test_models_are_trained_and_their_pieces_can_be_joined(tmp_path: Path):
    sizes = "--d-model=16 --num-heads=1 --d-feed-forward=16 --num-encoder-layers=1"
    options = f"--max-steps=2 --num-decoder-layers=1 --vocab-size=60 {sizes}"
    data, out, joined = write_data(tmp_path / "data"), tmp_path / "out", tmp_path / "joined"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    }

    def shown(*command: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", *command],
            check=True,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    where = (f"--data-dir={data}", f"--out={out}", f"--options={options}")
    how = ("--models=en-de", "--device=cpu", "--seconds=200")
    figures = json.loads(shown("bench.gpu.training", *where, *how))
    assert (figures["model"], figures["ended"], figures["pieces"]) == ("en-de", "exit code 0", 1)
    assert figures["validations"] == 1
    assert shown("bench.gpu.pieces", "join", f"--to={joined}", str(out)) == f"{joined}/en-de\n"
    names = {str(path.relative_to(joined / "en-de")) for path in (joined / "en-de").rglob("*")}
    assert {"best/weights.safetensors", "tokenizer.json", "config.json", "run.json"} <= names
