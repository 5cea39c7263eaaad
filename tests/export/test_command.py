import json
import signal
from dataclasses import asdict
from importlib.metadata import version

import pytest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from attendant_export.runs import checkpoint
from attendant_export.runs.history import History
from attendant_export.train.translation import TranslationTask
from attendant_manifest import MANIFEST_VERSION

from tests.support.bundles import data_card, write_pairs
from tests.support.completions import completed_by_bash, script_of

pytestmark = pytest.mark.usefixtures("quiet_threads")

TRAIN = "train-translation --data-dir {data} --run-dir {run} --train train.tsv --valid valid.tsv "
SMALL = "--vocab-size 150 --d-model 32 --num-heads 2 --d-feed-forward 64 --max-batch-tokens 512"


@pytest.fixture
def data_dir(tmp_path):
    folder = write_pairs(tmp_path / "data")
    (folder / "card.json").write_text(json.dumps(asdict(data_card("en", "de"))))
    (folder / "text.txt").write_text("The dog waits.\nThe king waits too.\n\nAnother document.\n")
    (folder / "empty.tsv").touch()
    return folder


def card_of(bundle):
    return (bundle / "MODEL_CARD.md").read_text()


def run(command, **folders):
    main(command.format(**folders).split())


def test_a_translation_model_is_trained_exported_verified_and_inspected(data_dir, tmp_path, capsys):
    folders = {"data": data_dir, "run": tmp_path / "run", "bundles": tmp_path / "bundles"}
    (tmp_path / "animals.tsv").write_text("cat\tKater\n", encoding="utf-8")
    run(
        "train-translation --data-dir {data} --run-dir {run} --train train.tsv --valid valid.tsv "
        "--num-encoder-layers 1 --num-decoder-layers 1 --max-steps 30 --validate-every-steps 30 "
        f"--warmup-steps 5 --learning-rate 0.005 --seed 3 --device cpu {SMALL}",
        **folders,
    )
    run(
        "export --data-dir {data} --run-dir {run} --bundles-dir {bundles} --name en-de "
        "--model-version 1.0 --data-card {data}/card.json --precisions int8,fp32 --test test.tsv "
        "--shortlists train.tsv --glossary {glossary}",
        glossary=tmp_path / "animals.tsv",
        **folders,
    )
    bundle = folders["bundles"] / "en-de" / "1.0"
    run("verify {bundle}", bundle=bundle)
    run("inspect {bundle}", bundle=bundle)

    output = capsys.readouterr().out
    assert f"{folders['run']}: finished with best BLEU " in output
    assert "of 16 reference texts get the same tokens" in output
    assert "int8 with shortlists: batch mates change nothing" in output
    assert " with shortlists, fp32 " in output
    assert "| int8 | beam4 with shortlists | " in card_of(bundle)
    assert "| text | greedy translation |\n|---|---|\n| The dog \\| " in card_of(bundle)
    assert "glossaries  animals" in output
    assert (bundle / "glossaries/animals.tsv").read_text(encoding="utf-8") == "cat\tKater\n"
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

    assert "finished with best mean accuracy " in capsys.readouterr().out

    manifest = read_manifest(bundle)
    assert manifest.limits.max_tokens == 16
    assert [p.name for p in manifest.precisions] == ["int8", "fp16"]
    assert "| text | best guesses |\n|---|---|\n| The dog \\| [MASK] | " in card_of(bundle)
    assert {q.metric for q in manifest.quality} == {"retrieval accuracy"}
    assert "Contrastive" in manifest.provenance.recipe


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train-translation --run-dir {tmp}/run", "--data-dir or DATA_DIR"),
        ("train-translation --data-dir {tmp} --run-dir {tmp}/run", "train.tsv.gz: no such file"),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --d-model 30",
            "--d-model 30, --num-heads 8: d_model (30) must be a multiple of 2 * num_heads (8)",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --d-model 24 --num-heads 2",
            "--d-model 24, --num-heads 2: Attention.head_dim: 12 is not supported in a decoder, "
            "only multiples of 8",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --num-heads 0",
            "argument --num-heads: 0 is not an integer of at least 1",
        ),
        (
            "train-bert --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --text text.txt --d-model 30 --num-heads 4",
            "--d-model 30, --num-heads 4: d_model (30) must be a multiple of num_heads (4)",
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
            "train-bert --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --text text.txt:abc",
            "--text text.txt:abc: want FILE",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --warmup-steps 0",
            "argument --warmup-steps: 0 is not an integer of at least 1",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --device gpu",
            "device 'gpu' is not auto, cpu or cuda",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --augment names:1.5",
            "--augment names:1.5: want KIND[:PROBABILITY], a probability from 0 to 1",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --augment emoji",
            "--augment emoji: emoji is none of all, numbers, names, no-final-punctuation, ",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --extra-pairs more.tsv",
            "more.tsv: no such file",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --extra-pairs valid.tsv:0",
            "--extra-pairs valid.tsv:0: want FILE[:REPEATS], repeats 1 to 1000",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --extra-valid test.tsv",
            "--extra-valid test.tsv: want NAME=FILE",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --extra-valid a=test.tsv --extra-valid a=valid.tsv",
            "--extra-valid: want a name of its own for every file",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv:much "
            "--valid valid.tsv",
            "--train train.tsv:much: want FILE[:WEIGHT], a number",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv:2 "
            "--train valid.tsv --valid valid.tsv",
            "--train: want a weight for every file or for none",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid valid.tsv --filter short",
            "--filter short: want copies, duplicates or languages:SOURCE-TARGET",
        ),
        (
            "export --data-dir {data} --run-dir {tmp}/none --data-card {data}/card.json "
            "--valid valid.tsv",
            "none: no such run folder",
        ),
        (
            "export --data-dir {data} --run-dir {tmp} --data-card {data}/train.tsv",
            "train.tsv is not a data card",
        ),
        (
            "train-translation --data-dir {data} --run-dir {tmp}/run --train train.tsv "
            "--valid empty.tsv",
            "empty.tsv has no pairs of texts",
        ),
        (
            "train-bert --data-dir {data} --run-dir {tmp}/run --train train.tsv --valid empty.tsv "
            "--text text.txt",
            "empty.tsv has no pairs of texts",
        ),
    ],
)
def test_a_mistake_is_answered_with_one_line_and_exit_code_2(
    command, message, data_dir, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("DATA_DIR", raising=False)

    with pytest.raises(SystemExit) as exit_:
        run(command, data=data_dir, tmp=tmp_path)

    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith("attendant-export: ")
    assert message in error[0]


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("train-translation --train train.tsv --valid valid.tsv --extra-pairs bad.tsv:2", [2]),
        ("train-bert --train bad.tsv --valid valid.tsv --text text.txt --text bad.txt", [2, 1]),
        ("train-translation --train train.tsv --valid bad.tsv", [2]),
    ],
)
def test_wrong_lines_are_refused_before_the_first_step(command, wrong, data_dir, tmp_path, capsys):
    (data_dir / "bad.tsv").write_text("A dog.\tEin Hund.\nNo translation.\n")
    (data_dir / "bad.txt").write_bytes(b"\xff\xfe\n")

    with pytest.raises(SystemExit) as exit_:
        run(f"{command} --data-dir {data_dir} --run-dir {tmp_path / 'run'}")

    assert exit_.value.code == 2
    heading, *rows = capsys.readouterr().err.splitlines()
    assert heading.startswith("attendant-export: ")
    assert ("; --skip-bad-lines leaves" in heading) != ("--valid bad.tsv" in command)
    assert [int(row.split(":")[1]) for row in rows] == wrong
    assert not (tmp_path / "run/last").exists()


def test_a_bert_is_trained_without_wrong_lines_when_asked_for(data_dir, tmp_path, caplog):
    caplog.set_level("INFO")
    (data_dir / "bad.txt").write_bytes(b"\xff\xfe\nThe dog waits.\n")
    (data_dir / "bad.tsv").write_bytes((data_dir / "train.tsv").read_bytes() + b"alone\n\n")

    run(
        "train-bert --data-dir {data} --run-dir {run} --train bad.tsv --valid valid.tsv "
        "--text bad.txt --num-layers 1 --max-tokens 16 --device cpu --max-pairs 32 "
        f"--contrastive-max-steps 1 {SMALL} --skip-bad-lines",
        data=data_dir,
        run=tmp_path / "run",
    )

    assert caplog.messages[0] == (
        "left out: 3 lines (1 not two tab-separated texts, 1 empty side, 1 not UTF-8)"
    )


def test_a_bert_may_have_heads_of_any_width(data_dir, tmp_path):
    folders = {"data": data_dir, "run": tmp_path / "bert", "bundles": tmp_path / "bundles"}
    run(
        "train-bert --data-dir {data} --run-dir {run} --train train.tsv --valid valid.tsv "
        "--text text.txt:1000 --num-layers 1 --max-tokens 16 --device cpu --max-pairs 32 "
        f"--contrastive-max-steps 1 --contrastive-validate-every-steps 1 {SMALL} --d-model 6",
        **folders,
    )
    run(
        "export --data-dir {data} --run-dir {run} --bundles-dir {bundles} "
        "--data-card {data}/card.json --precisions fp32",
        **folders,
    )
    attention = read_manifest(folders["bundles"] / "bert/1").architecture.encoder.groups[0]
    assert attention.self_attention.head_dim == 3


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_what_is_no_bundle_ends_with_one_line_and_exit_code_1(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(command + " {folder}", folder=tmp_path)

    assert exit_.value.code == 1
    assert capsys.readouterr().err.endswith("is not a bundle: it has no manifest.json\n")


def test_a_damaged_bundle_ends_with_exit_code_1(translation_bundle, tmp_path, capsys):
    damaged = tmp_path / "1"
    damaged.mkdir()
    (damaged / "manifest.json").write_bytes((translation_bundle / "manifest.json").read_bytes())

    with pytest.raises(SystemExit) as exit_:
        run("verify {bundle}", bundle=damaged)

    assert exit_.value.code == 1
    assert "tokenizer.json is missing" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_says_so_and_does_not_look_finished(
    number, code, data_dir, tmp_path, capsys, monkeypatch
):
    def stopped(task, batch):
        signal.raise_signal(number)
        return loss(task, batch)

    loss = TranslationTask.loss
    monkeypatch.setattr(TranslationTask, "loss", stopped)

    with pytest.raises(SystemExit) as exit_:
        run(f"{TRAIN} --max-steps 2 --device cpu {SMALL}", data=data_dir, run=tmp_path / "run")

    assert exit_.value.code == code
    output = capsys.readouterr()
    message = f"stopped by {number.name}; run the same command again to continue"
    assert output.err.endswith(f"attendant-export: {message}\n")
    assert output.out == ""


def test_a_recipe_names_changes_of_the_text_and_further_pairs(data_dir, tmp_path, capsys):
    (data_dir / "short.tsv").write_text("Dog\tHund\nKing\tKönig\n", encoding="utf-8")
    folders = {"data": data_dir, "run": tmp_path / "run"}
    run(
        f"{TRAIN} --num-encoder-layers 1 --num-decoder-layers 1 --max-steps 1 --device cpu {SMALL} "
        "--extra-pairs short.tsv:3 --augment all --augment names:0",
        **folders,
    )

    recipe = json.loads((tmp_path / "run/run.json").read_text())["recipe"]
    assert "Each pair of short.tsv occurs 3 times in an epoch." in recipe
    assert "probabilities: numbers 0.5, no-final-punctuation 0.2, lower-case 0.12, " in recipe
    assert "mean of greedy BLEU and greedy BLEU without capitals and final punctuation" in recipe
    columns = (tmp_path / "run/history.csv").read_text().splitlines()[0].split(",")
    assert [name for name in columns if "bleu" in name] == ["mean_bleu", "bleu", "casual_bleu"]
    assert ": finished with best mean of both BLEU figures " in capsys.readouterr().out


def test_a_recipe_names_mixtures_and_filters(data_dir, tmp_path, caplog):
    folders = {"data": data_dir, "run": tmp_path / "run"}
    caplog.set_level("INFO")
    (data_dir / "more").mkdir()
    (data_dir / "more/a.tsv").write_text("Dog\tHund\nTom\tTom\nDog\tHund\n", encoding="utf-8")
    run(
        "train-translation --data-dir {data} --run-dir {run} --train train.tsv:9 --train more:1 "
        "--valid valid.tsv --num-encoder-layers 1 --num-decoder-layers 1 --max-steps 1 "
        f"--device cpu {SMALL} --filter copies --filter duplicates --max-length-ratio 9 "
        "--cache-dir {run}/cache --extra-valid tests=test.tsv --extra-valid again=valid.tsv",
        **folders,
    )

    recipe = json.loads((tmp_path / "run/run.json").read_text())["recipe"]
    assert "The pairs are mixed with these weights: train.tsv 9, more 1." in recipe
    assert "left out for these reasons: copies, duplicates, length ratio above 9." in recipe
    assert "train.tsv: 288 pairs" in caplog.messages
    assert "more: 1 pair; 2 of 3 lines are left out: 1 copies, 1 duplicates" in caplog.messages
    assert len(list((tmp_path / "run/cache").glob("tokens-*"))) == 2
    assert not (tmp_path / "run/data").exists()
    (row,) = History(tmp_path / "run").rows
    metrics = ["bleu", "chrf", "validation_loss"]
    measured = [f"{name}{metric}" for name in ("", "tests.", "again.") for metric in metrics]
    assert list(row) == ["step", "minutes", "training_loss", "learning_rate", *measured]
    assert {each: row[each] for each in metrics} == {each: row[f"again.{each}"] for each in metrics}


def test_other_flags_neither_change_a_run_nor_its_record(data_dir, tmp_path, capsys):
    folders = {"data": data_dir, "run": tmp_path / "run"}
    run(f"{TRAIN} --max-steps 1 --device cpu {SMALL}", **folders)
    before = {path: path.read_bytes() for path in folders["run"].iterdir() if path.is_file()}

    with pytest.raises(SystemExit) as exit_:
        run(f"{TRAIN} --max-steps 1 --device cpu {SMALL} --num-heads 4 --seed 2", **folders)

    assert exit_.value.code == 2
    assert (
        "is the run of a model with encoder.groups.0.self_attention.num_heads 2, not 4"
        in capsys.readouterr().err
    )
    assert {p: p.read_bytes() for p in folders["run"].iterdir() if p.is_file()} == before


def test_what_a_training_started_from_must_be_credited_in_the_data_card(
    translation_bundle, data_dir, tmp_path, capsys
):
    folders = {"data": data_dir, "run": tmp_path / "run", "start": translation_bundle}
    sizes = SMALL + " --num-encoder-layers 2 --num-decoder-layers 2"
    run(f"{TRAIN} --max-steps 1 --device cpu {sizes} --init-from {{start}}", **folders)
    card = asdict(data_card("en", "de"))
    card["data"][0]["name"] = "other sentences"
    (data_dir / "card.json").write_text(json.dumps(card))

    with pytest.raises(SystemExit) as exit_:
        run(
            "export --data-dir {data} --run-dir {run} --bundles-dir {run} "
            "--data-card {data}/card.json",
            **folders,
        )

    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the data card must name the data of the initial weights" in error
    assert "test sentences" in error


def test_a_start_with_another_vocabulary_is_recorded(translation_bundle, data_dir, tmp_path):
    folders = {"data": data_dir, "run": tmp_path / "run", "start": translation_bundle}
    sizes = SMALL + " --num-encoder-layers 2 --num-decoder-layers 2"
    started = f"{TRAIN} --max-steps 1 --device cpu {sizes} --init-from {{start}}"
    run(f"{started} --new-tokenizer", **folders)

    recipe = json.loads((folders["run"] / "run.json").read_text())["recipe"]
    assert "Started from the weights of the bundle tiny-en-de/1" in recipe
    assert recipe.endswith("Its vocabulary is new; tokens of both kept their embeddings.")


def test_the_data_folder_may_be_given_by_the_environment(data_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(data_dir))

    with pytest.raises(SystemExit):
        run("train-translation --run-dir {tmp}/run", tmp=tmp_path)

    assert str(data_dir) in capsys.readouterr().err


def test_every_command_explains_itself(capsys):
    commands = ["train-translation", "train-bert", "export"]
    for command in [*commands, "verify", "inspect", "upgrade", "rebuild"]:
        with pytest.raises(SystemExit) as exit_:
            main([command, "--help"])

        assert exit_.value.code == 0
        shown = capsys.readouterr().out
        assert "usage: attendant-export" in shown
        assert "default: None" not in shown
        assert "default: )" not in shown


def test_a_run_goes_on_with_the_text_that_it_has_started_with_only(data_dir, tmp_path, capsys):
    folders = {"data": data_dir, "run": tmp_path / "run"}
    run(f"{TRAIN} --max-steps 1 --device cpu {SMALL}", **folders)
    path = data_dir / "train.tsv"
    path.write_text(path.read_text(encoding="utf-8") + "More.\tMehr.\n", encoding="utf-8")

    with pytest.raises(SystemExit) as exit_:
        run(f"{TRAIN} --max-steps 2 --device cpu {SMALL}", **folders)

    assert exit_.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "with other filters, languages or controls: train.tsv." in message
    assert f"--init-from {folders['run']}" in message
    assert checkpoint.read_json(folders["run"] / "last/state.json")["step"] == 1


def test_the_versions_of_what_trains_and_verifies_are_printed(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    versions = dict(line.split(" ") for line in capsys.readouterr().out.splitlines())
    assert next(iter(versions)) == "attendant-export"
    assert versions["torch"] == version("torch")
    assert versions["manifest"] == str(MANIFEST_VERSION)


def test_bash_completes_commands_their_flags_and_folders(capsys, tmp_path):
    script = script_of(main, "bash", capsys, tmp_path / "completion")
    assert completed_by_bash(script, "attendant-export", "imp") == ["import"]
    assert completed_by_bash(script, "attendant-export", "sign", "--k") == ["--key"]
    (tmp_path / "runs").mkdir()
    assert completed_by_bash(script, "attendant-export", "export", "--run-dir", "r") == ["runs"]
