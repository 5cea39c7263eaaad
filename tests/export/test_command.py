import json
from dataclasses import asdict

import pytest
from attendant_export.__main__ import main
from attendant_export.manifest import read_manifest

from tests.support.bundles import data_card, one_thread, write_pairs

SMALL = "--vocab-size 150 --d-model 32 --num-heads 2 --d-feed-forward 64 --max-batch-tokens 512"


@pytest.fixture
def data_dir(tmp_path):
    folder = write_pairs(tmp_path / "data")
    (folder / "card.json").write_text(json.dumps(asdict(data_card("en", "de"))))
    (folder / "text.txt").write_text("The dog waits.\nThe king waits too.\n\nAnother document.\n")
    return folder


@pytest.fixture(autouse=True)
def quiet_threads():
    with one_thread():
        yield


def run(command, **folders):
    main(command.format(**folders).split())


def test_a_translation_model_is_trained_exported_verified_and_inspected(data_dir, tmp_path, capsys):
    folders = {"data": data_dir, "run": tmp_path / "run", "bundles": tmp_path / "bundles"}
    run(
        "train-translation --data-dir {data} --run-dir {run} --train train.tsv --valid valid.tsv "
        "--num-encoder-layers 1 --num-decoder-layers 1 --max-steps 30 --validate-every-steps 30 "
        f"--warmup-steps 5 --learning-rate 0.005 --seed 3 --device cpu {SMALL}",
        **folders,
    )
    run(
        "export --data-dir {data} --run-dir {run} --bundles-dir {bundles} --name en-de "
        "--model-version 1.0 --data-card {data}/card.json --precisions int8,fp32 --test test.tsv",
        **folders,
    )
    bundle = folders["bundles"] / "en-de" / "1.0"
    run("verify {bundle}", bundle=bundle)
    run("inspect {bundle}", bundle=bundle)

    assert "all outputs verified" in capsys.readouterr().out
    provenance = read_manifest(bundle).provenance
    assert provenance.seed == 3
    assert "learning rate 0.005 after 5 steps" in provenance.recipe
    assert "valid.tsv" in provenance.recipe
    assert "CPU cores" in provenance.hardware
    assert provenance.training_seconds > 0


def test_an_embedding_model_is_trained_and_exported(data_dir, tmp_path, capsys):
    folders = {"data": data_dir, "run": tmp_path / "bert", "bundles": tmp_path / "bundles"}
    run(
        "train-bert --data-dir {data} --run-dir {run} --train train.tsv --valid valid.tsv "
        "--text text.txt:1000 --num-layers 1 --max-tokens 16 --device cpu --max-pairs 32 "
        "--mlm-max-steps 3 --mlm-validate-every-steps 3 "
        f"--contrastive-max-steps 3 --contrastive-validate-every-steps 3 {SMALL}",
        **folders,
    )
    run(
        "export --data-dir {data} --run-dir {run} --bundles-dir {bundles} "
        "--data-card {data}/card.json --test test.tsv",
        **folders,
    )
    bundle = folders["bundles"] / "bert" / "1"
    run("verify {bundle}", bundle=bundle)

    manifest = read_manifest(bundle)
    assert manifest.limits.max_tokens == 16
    assert [p.name for p in manifest.precisions] == ["int8", "fp16"]
    assert {q.metric for q in manifest.quality} == {"retrieval accuracy"}
    assert "contrastive" in manifest.provenance.recipe


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train-translation --run-dir {tmp}/run", "--data-dir or DATA_DIR"),
        ("train-translation --data-dir {tmp} --run-dir {tmp}/run", "train.tsv.gz: no such file"),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train bad.tsv "
            "--valid valid.tsv",
            "bad.tsv:2: want two tab-separated texts",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --d-model 30",
            "d_model (30) must be a multiple",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --init-from {tmp}/nowhere",
            "nowhere",
        ),
        (
            "train-bert --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --text text.txt:1:2:3",
            "--text text.txt:1:2:3: want FILE",
        ),
        (
            "export --data-dir {data} --run-dir {tmp}/none --data-card {data}/card.json "
            "--valid valid.tsv",
            "none/config.json: No such file",
        ),
        (
            "export --data-dir {data} --run-dir {tmp}/none --data-card {data}/train.tsv",
            "train.tsv is not a data card",
        ),
        ("verify {tmp}", "is no bundle: it has no manifest.json"),
        ("inspect {tmp}", "is no bundle: it has no manifest.json"),
    ],
)
def test_a_mistake_is_answered_with_one_line_and_exit_code_2(
    command, message, data_dir, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("DATA_DIR", raising=False)
    (data_dir / "bad.tsv").write_text("A dog.\tEin Hund.\nNo translation.\n")

    with pytest.raises(SystemExit) as exit_:
        run(command, data=data_dir, tmp=tmp_path)

    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("attendant-export: ")
    assert message in error[0]


def test_the_data_folder_may_be_given_by_the_environment(data_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(data_dir))

    with pytest.raises(SystemExit):
        run("train-translation --run-dir {tmp}/run", tmp=tmp_path)

    assert str(data_dir) in capsys.readouterr().err


def test_every_command_explains_itself(capsys):
    for command in ("train-translation", "train-bert", "export", "verify", "inspect"):
        with pytest.raises(SystemExit) as exit_:
            main([command, "--help"])

        assert exit_.value.code == 0
        assert "usage: attendant-export" in capsys.readouterr().out
