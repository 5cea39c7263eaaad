"""Models that were trained on files with controls and languages obey requests that choose them."""

import itertools
import json
from dataclasses import asdict

import pytest
from attendant_client import Client
from attendant_export.__main__ import main
from attendant_export.bundle import export
from attendant_export.bundle.description import describe_manifest
from attendant_export.bundle.manifest import read_manifest

from tests.support.bundles import NOUNS, data_card
from tests.support.serving import running_server

pytestmark = pytest.mark.usefixtures("quiet_threads")

SIZES = (
    "--vocab-size 200 --d-model 32 --num-heads 2 --d-feed-forward 64 --num-encoder-layers 1 "
    "--num-decoder-layers 1 --dropout 0"
)
STEPS = (
    "--max-steps 150 --validate-every-steps 150 --learning-rate 1e-2 --warmup-steps 20 "
    "--max-batch-tokens 1024 --device cpu --num-threads 1"
)
FRENCH = {"dog": "chien", "man": "homme", "teacher": "prof", "baker": "patron", "king": "roi"}
VERBS = {"see": ("sehen", "siehst", "voir"), "find": ("finden", "findest", "trouver")}


def run(command, **folders):
    main([part.format(**folders) for part in command.split()])


def write_data(folder):
    """Files of the same sources with formal, informal and French targets, and a data card."""
    lines = {"formal": "", "informal": "", "french": ""}
    for (verb, forms), (english, german) in itertools.product(VERBS.items(), NOUNS.items()):
        formal, informal, french = forms
        lines["formal"] += f"You {verb} the {english}.\tSie {formal} den {german}.\n"
        lines["informal"] += f"You {verb} the {english}.\tDu {informal} den {german}.\n"
        lines["french"] += f"You {verb} the {english}.\tVous {french} le {FRENCH[english]}.\n"
    folder.mkdir()
    for name, text in lines.items():
        (folder / f"{name}.tsv").write_text(text, encoding="utf-8")
    card = asdict(data_card("en", "de", "fr"))
    (folder / "card.json").write_text(json.dumps(card | {"examples": ["You see the dog."]}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a bundle of a model that was trained, exported and measured by commands."""
    folder = tmp_path_factory.mktemp("controls")
    write_data(folder / "data")
    folders = {"data": folder / "data", "run": folder / "run", "bundles": folder / "bundles"}
    german = "target-language=de;formality"
    run(
        "train-translation --data-dir {data} --run-dir {run} "
        f"--train formal.tsv;{german}=formal --train informal.tsv;{german}=informal "
        "--train french.tsv;target-language=fr;formality=formal "
        f"--valid informal.tsv;{german}=informal "
        f"--extra-valid french=french.tsv;target-language=fr {SIZES} {STEPS}",
        **folders,
    )
    run(
        "export --data-dir {data} --run-dir {run} --bundles-dir {bundles} --data-card "
        "{data}/card.json --name choosing --precisions fp32 --test formal.tsv;target-language=de "
        "--test formal.tsv;target-language=de;formality=informal",
        **folders,
    )
    return folder


@pytest.fixture(scope="module")
def manifest(trained):
    return read_manifest(trained / "bundles/choosing/1")


@pytest.fixture(scope="module")
def client(trained, loop, settings):
    with (
        running_server(loop, settings(bundles=trained / "bundles")) as running,
        Client(f"127.0.0.1:{running.server.port}") as client,
    ):
        yield client


TEXTS = ["You see the dog.", "You find the king."]
EXPECTED = {
    ("de", "formal"): ["Sie sehen den Hund.", "Sie finden den K\u00f6nig."],
    ("de", "informal"): ["Du siehst den Hund.", "Du findest den K\u00f6nig."],
    ("fr", "formal"): ["Vous voir le chien.", "Vous trouver le roi."],
}


@pytest.mark.parametrize(("language", "formality"), EXPECTED)
def test_a_request_gets_the_language_and_formality_that_it_chooses(client, language, formality):
    found = client.translate(
        TEXTS, target_language=language, controls={"formality": formality}, beam_size=1
    )
    assert [each.text for each in found] == EXPECTED[language, formality]


def test_the_default_is_the_value_of_the_first_file(client):
    found = client.translate(TEXTS, target_language="de")
    assert [each.text for each in found] == EXPECTED["de", "formal"]


def test_the_model_lists_its_languages_and_controls(client, manifest):
    model = client.model("choosing")
    [control] = model.controls
    assert (control.name, list(control.values)) == ("formality", ["formal", "informal"])
    assert control.default_value == "formal"
    assert [language.tag for language in manifest.source_languages] == ["en"]
    assert [language.tag for language in manifest.target_languages] == ["de", "fr"]
    described = describe_manifest(manifest)
    assert "formality: formal, informal, default formal" in described


def test_validations_and_quality_figures_are_those_of_the_chosen_values(trained, manifest):
    last = (trained / "run/history.csv").read_text().splitlines()
    figures = dict(zip(last[0].split(","), last[-1].split(","), strict=True))
    assert float(figures["bleu"]) == float(figures["french.bleu"]) == pytest.approx(100)
    formal, other = (q for q in manifest.quality if (q.search, q.metric) == ("greedy", "sacreBLEU"))
    assert formal.value == pytest.approx(100)
    assert formal.dataset.startswith("formal.tsv (target-language=de), ")
    assert other.value < 60
    assert other.dataset.startswith("formal.tsv (target-language=de, formality=informal), ")


def test_the_recipe_names_the_files_with_their_choices(manifest):
    marked = "The pairs of informal.tsv are marked with target-language=de, formality=informal."
    assert marked in manifest.provenance.recipe


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("--test formal.tsv;target-language=de;formality=high", "formality=high: want one of"),
        ("--control formality:tu=dog", "--control formality: the run has a control of this name"),
    ],
)
def test_a_choice_that_cannot_be_measured_or_added_ends_an_export_at_once(
    trained, tmp_path, capsys, monkeypatch, option, problem
):
    monkeypatch.setattr(export, "write_precisions", lambda *_: pytest.fail("too late"))
    with pytest.raises(SystemExit) as stop:
        run(
            "export --data-dir {data} --run-dir {run} --bundles-dir {bundles} --data-card "
            f"{{data}}/card.json --name other --precisions fp32 {option}",
            data=trained / "data",
            run=trained / "run",
            bundles=tmp_path,
        )
    assert stop.value.code == 2
    assert problem in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("--train formal.tsv;formality", "--train formal.tsv;formality: want FILE[;NAME=VALUE]..."),
        ("--train formal.tsv;Tone=x", "names and values of controls match"),
        ("--train ;formality=formal", "a data file has an empty name"),
        (
            "--train formal.tsv;source_language=en",
            "source_language is no name of a control; source-language is a language",
        ),
        (
            "--train formal.tsv;target-language=de --train french.tsv;target-language=DE",
            "target-language: de and DE are the same language: want one spelling",
        ),
        (
            " ".join(f"--train formal.tsv;c{i}=x" for i in range(33)),
            "the files of training pairs have 33 controls, at most 32",
        ),
        ("--train formal.tsv;tone=a;tone=b", "each name once"),
        ("--train formal.tsv;target-language=German.", "with a tag such as de or pt-BR"),
        (
            "--train formal.tsv;target-language=de --train french.tsv",
            "target-language: want it for every file of training pairs or for none",
        ),
        (
            "--train formal.tsv;formality=formal --valid formal.tsv;formality=high",
            "formality=high: want one of formal",
        ),
        (
            "--train formal.tsv --valid formal.tsv;tone=high",
            "tone=high: the model has no languages and no controls to choose",
        ),
        (
            "--train formal.tsv;target-language=de;tone=high --init-from {run}",
            "tone=high: the controls of the model are: formality",
        ),
        (
            "--train formal.tsv --init-from {run}",
            "target-language=: want one of de, fr",
        ),
    ],
)
def test_a_choice_that_the_model_cannot_have_is_refused(
    trained, tmp_path, capsys, command, problem
):
    valid = "" if "--valid" in command else "--valid formal.tsv"
    with pytest.raises(SystemExit) as stop:
        run(
            f"train-translation --data-dir {{data}} --run-dir {{new}} {command} {valid} {SIZES} "
            "--max-steps 1 --device cpu",
            data=trained / "data",
            run=trained / "run",
            new=tmp_path / "run",
        )
    assert stop.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert problem in message
    assert not (tmp_path / "run/tokenizer.json").exists()  # at once: it takes minutes to train
