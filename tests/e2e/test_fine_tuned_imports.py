"""Imported models are trained further and exported with what belongs to them, and then served."""

import json
from dataclasses import asdict, replace

import pytest
from attendant_client import Client
from attendant_export.__main__ import main
from attendant_export.bundle import importing
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_export.bundle.manifest import read_manifest
from attendant_export.runs.records import DataSource, read_run_record
from tokenizers import Tokenizer

from tests.support.bundles import data_card, one_thread
from tests.support.marian_checkpoints import write_marian
from tests.support.marian_files import write_marian_folder
from tests.support.multilingual_checkpoints import write_multilingual
from tests.support.serving import running_server
from tests.support.t5_checkpoints import write_t5

pytestmark = pytest.mark.usefixtures("quick_imports", "quiet_threads")

PAIRS = {
    "The train is late.": "Le train est en retard.",
    "She is here.": "Elle est ici.",
    "No.": "Non.",
    "I have a car.": "J'ai une voiture.",
}
STEPS = "--learning-rate 1e-2 --warmup-steps 5 --dropout 0 --device cpu --num-threads 1"


KEPT = (
    "architecture",
    "special_tokens",
    "target_special_tokens",
    "source_languages",
    "target_languages",
    "decoding",
    "controls",
    "text_normalization",
    "limits",
)
"""The fields of a manifest that a fine-tuned model has from its base."""


def kept(manifest):
    """The fields in `KEPT`, as texts."""
    return {name: str(getattr(manifest, name)) for name in KEPT}


def run(command, **folders):
    main([part.format(**folders) for part in command.split()])


def fine_tune(base, folder, num_steps, choice=""):
    """Train the bundle ``base`` further; returns the folders of commands."""
    data = folder / "data"
    data.mkdir()
    lines = "".join(f"{source}\t{target}\n" for source, target in PAIRS.items())
    (data / "pairs.tsv").write_text(lines, encoding="utf-8")
    folders = {
        "data": data,
        "run": folder / "run",
        "base": base,
        "bundles": folder / "bundles",
        "card": data / "card.json",
    }
    run(
        "train-translation --data-dir {data} --run-dir {run} --init-from {base} "
        f"--train pairs.tsv{choice} --valid pairs.tsv{choice} {STEPS} "
        f"--max-steps {num_steps} --validate-every-steps {num_steps}",
        **folders,
    )
    return folders


def write_card(folders, languages, *sources):
    card = data_card(*languages)
    content = asdict(replace(card, data=[*card.data, *sources]))
    folders["card"].write_text(json.dumps(content | {"examples": ["No."]}))


def export(folders, languages):
    """The bundle of the run, whose data card names the weights of the base."""
    write_card(folders, languages, *read_run_record(folders["run"]).start_data)
    run(
        "export --data-dir {data} --run-dir {run} --bundles-dir {bundles} --data-card {card} "
        "--name tuned --precisions fp32 --test {data}/pairs.tsv" + folders.get("choice", ""),
        **folders,
    )
    return folders["bundles"] / "tuned/1"


@pytest.fixture(scope="module")
def quick_imports():
    """Imports are verified with a few texts only: tests of the importers do the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "sample_texts", lambda: list(PAIRS))
        patch.setattr(importing, "is_original_installed", lambda _: False)
        yield


def imported(source, folder, **options):
    with one_thread():
        return import_bundle(source, folder / "imported", ImportOptions(**options))


def written(bundle):
    """The targets of the pairs as the vocabulary of a bundle, which lacks some pieces, has them."""
    manifest = read_manifest(bundle)
    tokenizer = Tokenizer.from_file(str(bundle / manifest.target_tokenizer))
    limit = manifest.architecture.target_embeddings.vocab_size
    encoded = [tokenizer.encode(text).ids for text in PAIRS.values()]
    return [tokenizer.decode([i for i in ids if i < limit]) for ids in encoded]


@pytest.fixture(scope="module")
def marian(tmp_path_factory, quick_imports):
    """The base and the folders of a fine-tuned Marian model with two SentencePiece models."""
    folder = tmp_path_factory.mktemp("marian")
    base = imported(write_marian(folder / "source"), folder, max_tokens=30)
    return base, fine_tune(base, folder, 80)


@pytest.fixture(scope="module")
def tuned(marian):
    return export(marian[1], ("en", "fr"))


def test_a_fine_tuned_marian_model_gives_what_it_was_trained_on(tuned, loop, settings):
    with (
        running_server(loop, settings(bundles=tuned.parent.parent)) as running,
        Client(f"127.0.0.1:{running.server.port}") as client,
    ):
        found = client.translate(list(PAIRS), repetition_guard=False)
    assert [each.text for each in found] == written(tuned)


def test_a_fine_tuned_model_keeps_network_tokenizers_and_defaults(marian, tuned):
    base, own = read_manifest(marian[0]), read_manifest(tuned)
    assert kept(own) == kept(base)
    for name in (base.source_tokenizer, base.target_tokenizer):
        mine, theirs = (Tokenizer.from_file(str(each / name)) for each in (tuned, marian[0]))
        assert mine.get_vocab() == theirs.get_vocab()
    assert not own.provenance.HasField("imported_from")
    assert "Started from the weights of the bundle source/1" in own.provenance.recipe
    assert "joint vocabulary of the initial weights" in own.provenance.recipe


def test_the_data_card_must_name_the_imported_weights_with_their_licence(marian, capsys):
    base, folders = marian
    write_card(folders, ("en", "fr"))
    with pytest.raises(SystemExit) as stop:
        run(
            "export --data-dir {data} --run-dir {run} --bundles-dir {bundles} --data-card {card} "
            "--name other",
            **folders,
        )
    assert stop.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "the data card must name the data of the initial weights" in message
    [source] = read_run_record(folders["run"]).start_data
    origin = read_manifest(base).provenance.imported_from.source
    assert source == DataSource(f"Weights of {origin}", "cc0-1.0", f"Weights of {origin}")
    assert source.license in message


def test_an_imported_model_keeps_its_tokenizer(marian, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(
            "train-translation --data-dir {data} --run-dir {new} --init-from {base} "
            "--new-tokenizer --train pairs.tsv --valid pairs.tsv --max-steps 1 --device cpu",
            new=tmp_path / "run",
            **marian[1],
        )
    assert stop.value.code == 2
    assert "is an imported one and keeps its tokenizer" in capsys.readouterr().err


def test_a_model_with_tokens_of_languages_is_trained_with_those_that_a_file_states(
    tmp_path, loop, settings
):
    base = imported(write_multilingual(tmp_path / "source", "nllb"), tmp_path, max_tokens=30)
    languages = ";source-language=en;target-language=fr"
    folders = fine_tune(base, tmp_path, 80, languages) | {"choice": languages}
    tuned = export(folders, ("en", "fr"))
    assert kept(read_manifest(tuned)) == kept(read_manifest(base))
    with (
        running_server(loop, settings(bundles=folders["bundles"])) as running,
        Client(f"127.0.0.1:{running.server.port}") as client,
    ):
        found = client.translate(
            list(PAIRS), source_language="en", target_language="fr", repetition_guard=False
        )
    assert [each.text for each in found] == written(tuned)


def test_a_student_of_int8_weights_and_a_recurrent_decoder_is_trained(tmp_path):
    source = write_marian_folder(tmp_path / "source", enc_depth=1, dec_depth=1)
    base = imported(source, tmp_path, max_tokens=20, precisions=("int8",), license="CC0-1.0")
    tuned = export(fine_tune(base, tmp_path, 2), ("en", "fr"))
    own, before = read_manifest(tuned), read_manifest(base)
    assert kept(own) == kept(before)
    assert not own.precisions[0].shortlist_output


def test_a_t5_model_is_trained(tmp_path):
    source = write_t5(tmp_path / "source")
    languages = {"source_languages": ("en",), "target_languages": ("fr",)}
    base = imported(source, tmp_path, max_tokens=20, **languages)
    own = read_manifest(export(fine_tune(base, tmp_path, 2), ("en", "fr")))
    assert kept(own) == kept(read_manifest(base))
