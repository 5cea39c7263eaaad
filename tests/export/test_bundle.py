import io
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from attendant.v1.bundle_pb2 import MODEL_KIND_EMBEDDING, MODEL_KIND_TRANSLATION, PrecisionGraphs
from attendant_export.bundle import export, translation
from attendant_export.bundle.controls import read_control
from attendant_export.bundle.description import describe_manifest
from attendant_export.bundle.export import ExportOptions, export_bundle
from attendant_export.bundle.manifest import BundleError, read_manifest
from attendant_export.data.pair_tokenizer import Marks
from attendant_export.data.text_choice import ChosenFile
from attendant_export.data.tokenizer import load_tokenizer
from attendant_export.verify import embedding as verify_embeddings
from attendant_export.verify import translation as verify
from attendant_export.verify.graph_sessions import ParityError
from attendant_server.bundles import read_bundle

from tests.support.bundles import data_card, one_thread
from tests.support.manifests import translation_manifest

PRECISIONS = ["fp32", "int8", "fp16"]


@pytest.fixture
def run(translation_bundle) -> Path:
    """The folder with the run and the data of the session's bundle."""
    return translation_bundle.parents[1] / ".tiny-en-de-1"


def options(run: Path, **changes) -> ExportOptions:
    chosen = ExportOptions(
        name="again",
        version="1",
        data_card=data_card("en", "de"),
        valid_pairs=run / "data" / "valid.tsv",
        max_tokens=64,
    )
    return replace(chosen, **changes)


def test_a_manifest_describes_a_translation_bundle_completely(translation_bundle):
    manifest = read_manifest(translation_bundle)

    assert manifest.kind == MODEL_KIND_TRANSLATION
    assert (manifest.name, manifest.version) == ("tiny-en-de", "1")
    assert [language.tag for language in manifest.source_languages] == ["en"]
    assert [language.tag for language in manifest.target_languages] == ["de"]
    assert [p.name for p in manifest.precisions] == PRECISIONS
    assert [p.precision for p in manifest.parity.precisions] == PRECISIONS
    assert manifest.architecture.decoder.groups[0].num_layers == 2
    assert manifest.special_tokens.unk_id == 3
    assert manifest.limits.max_source_tokens == manifest.limits.max_target_tokens == 64
    assert manifest.provenance.training_seconds > 0
    assert manifest.provenance.data[0].name == "test sentences"


def test_shortlists_are_for_translation_models(run, embedding_bundle, tmp_path):
    wanted = options(run, shortlist_pairs=run / "data" / "train.tsv")
    with pytest.raises(ValueError, match="--shortlists is for translation models"):
        export_bundle(embedding_bundle.parents[1] / ".tiny-bert-1" / "run", tmp_path, wanted)


def test_a_manifest_describes_an_embedding_bundle_completely(embedding_bundle):
    manifest = read_manifest(embedding_bundle)

    assert manifest.kind == MODEL_KIND_EMBEDDING
    assert manifest.languages == ["en", "de"]
    assert all(p.HasField("embedder") and p.HasField("mlm_head") for p in manifest.precisions)
    assert manifest.architecture.d_model == 32
    assert manifest.special_tokens.HasField("mask_id")
    assert manifest.limits.max_tokens == 64
    assert manifest.embedding.normalize


@pytest.mark.parametrize("bundle", ["translation_bundle", "embedding_bundle"])
def test_a_manifest_lists_every_file(bundle, request):
    folder = request.getfixturevalue(bundle)

    listed = {file.path for file in read_manifest(folder).files}

    assert listed | {"manifest.json"} == {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bundle", ["translation_bundle", "embedding_bundle"])
def test_the_server_reads_what_the_exporter_writes(bundle, precision, request):
    read = read_bundle(request.getfixturevalue(bundle), precision, "cpu")

    read.check_files()
    assert read.precision == precision


def test_a_trained_bundle_keeps_its_quality_in_every_precision(translation_bundle):
    corpora = {p.precision: p.corpus for p in read_manifest(translation_bundle).parity.precisions}

    assert not corpora["fp32"].num_sentences
    for precision in ("int8", "fp16"):
        assert corpora[precision].num_sentences == 16
        assert corpora[precision].fp32_bleu > 80
        assert corpora[precision].bleu > 80


def test_reference_outputs_hold_tokens_and_log_probabilities(translation_bundle):
    reference = json.loads((translation_bundle / "reference_outputs.json").read_text())

    assert list(reference["outputs"]) == PRECISIONS
    for text, output in zip(reference["texts"], reference["outputs"]["int8"]["beam4"], strict=True):
        assert text["token_ids"][-1] == output["token_ids"][-1] == 2
        assert len(output["log_probabilities"]) == len(output["token_ids"])


def test_the_model_card_names_licence_credits_and_weaknesses(translation_bundle):
    card = (translation_bundle / "MODEL_CARD.md").read_text()

    for expected in ("CC0-1.0", "Sentences of this project's", "Knows 13 words.", "| int8 |"):
        assert expected in card


def test_a_manifest_is_described_for_people(translation_bundle):
    text = describe_manifest(read_manifest(translation_bundle))

    assert "languages   en to de" in text
    assert "encoder: groups (num_layers 2, self_attention (num_heads 2, head_dim 16" in text
    assert "beam4 ragged cached by decoder_step: 16 of 16 identical" in text
    assert "greedy ragged cached by greedy_step: 16 of 16 identical" in text
    assert "greedy ragged cached by greedy_steps: 16 of 16 identical" in text


def test_a_bundle_that_exists_is_not_overwritten(translation_bundle, run):
    before = (translation_bundle / "manifest.json").read_bytes()

    with pytest.raises(BundleError, match="exists already"):
        export_bundle(run / "run", translation_bundle.parents[1], options(run, name="tiny-en-de"))
    assert (translation_bundle / "manifest.json").read_bytes() == before


def test_an_export_that_fails_verification_leaves_nothing_behind(run, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "FP32_BOUND", 0.0)

    with pytest.raises(ParityError), one_thread():
        export_bundle(run / "run", tmp_path, options(run))
    assert list(tmp_path.iterdir()) == []


def test_the_next_export_of_a_bundle_removes_what_a_killed_one_left(run, tmp_path):
    for name in (".export-again_1", ".export-again_10", ".export-again-1_1"):
        (tmp_path / name / "bundle").mkdir(parents=True)

    with pytest.raises(ValueError, match="needs two languages"):
        export_bundle(run / "run", tmp_path, options(run, data_card=data_card("en")))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".export-again_10", ".export-again-1_1"}


@pytest.mark.parametrize(("floor", "num_warnings"), [(0.99, 0), (1.1, 1)])
def test_vectors_far_from_the_models_are_warned_of(
    floor, num_warnings, embedding_bundle, tmp_path, monkeypatch, caplog
):
    run = embedding_bundle.parents[1] / ".tiny-bert-1"
    monkeypatch.setitem(verify_embeddings.MIN_MEAN_COSINE, "int8", floor)

    with one_thread(), caplog.at_level(logging.WARNING):
        export_bundle(run / "run", tmp_path, options(run, precisions=("int8",)))

    assert caplog.text.count("int8 vectors have a mean cosine of 0.99") == num_warnings


def test_a_bundle_holds_only_the_wanted_precisions_but_is_compared_with_fp32(run, tmp_path):
    with one_thread():
        folder = export_bundle(
            run / "run",
            tmp_path,
            options(run, precisions=("int8",), test_pairs=(ChosenFile(run / "data" / "test.tsv"),)),
        )

    manifest = read_manifest(folder)
    assert [p.name for p in manifest.precisions] == ["int8"]
    assert [p.precision for p in manifest.parity.precisions] == ["fp32", "int8"]
    assert not list(folder.glob("*fp32*"))
    figures = {(q.metric, q.precision, q.search) for q in manifest.quality}
    searches = ("greedy", "beam4")
    assert figures == {(m, "int8", s) for m in ("sacreBLEU", "chrF") for s in searches}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Has Spaces"},
        {"name": "n" * 101},
        {"version": "../1"},
        {"version": "1" * 101},
        {"precisions": ("fp64",)},
        {"precisions": ()},
        {"max_tokens": 0},
        {"max_tokens": 65_537},
    ],
)
def test_impossible_options_are_refused(changes, tmp_path):
    with pytest.raises(ValueError):
        options(tmp_path, **changes)


@pytest.fixture
def ascii_by_default(monkeypatch):
    """Makes ASCII the default encoding of files, as in some locales."""
    monkeypatch.setattr(io, "text_encoding", lambda encoding, _=2: encoding or "ascii")


def test_a_manifest_is_read_as_utf8(tmp_path, ascii_by_default):
    content = translation_manifest() | {"description": "Für Prüfungen."}
    text = json.dumps(content, ensure_ascii=False)
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")

    assert read_manifest(tmp_path).description == "Für Prüfungen."


def test_a_model_card_is_written_as_utf8(embedding_bundle, tmp_path, ascii_by_default):
    run = embedding_bundle.parents[1] / ".tiny-bert-1"
    card = replace(data_card("en", "de"), description="Für Prüfungen.")

    with one_thread():
        folder = export_bundle(
            run / "run", tmp_path, options(run, data_card=card, precisions=("int8",))
        )

    assert "Für Prüfungen." in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"manifest_version": 3}', "manifest_version 3 is not 2"),
        ('{"surprise": 1}', "surprise"),
        ("not JSON", "manifest.json"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(content, problem, tmp_path):
    (tmp_path / "manifest.json").write_text(content)

    with pytest.raises(BundleError, match=problem):
        read_manifest(tmp_path)


def test_quality_is_measured_with_the_default_of_a_control(run, tmp_path, monkeypatch):
    tests = (ChosenFile(run / "data" / "test.tsv"),)
    wanted = options(run, controls=(read_control("noun:dog=dog,king=king;default=king"),))
    found = []
    monkeypatch.setattr(translation.TranslationExport, "_open", lambda *_: None)
    monkeypatch.setattr(translation, "measure_translation", lambda *args: found.append(args[-1]))
    monkeypatch.setattr(
        export, "write_model", lambda made, draft, *_: made.measure(PrecisionGraphs(), *draft.tests)
    )

    export_bundle(run / "run", tmp_path, replace(wanted, test_pairs=tests))

    tokenizer = load_tokenizer(run / "run" / "tokenizer.json")
    king = tokenizer.encode("king", add_special_tokens=False).ids
    assert found == [Marks(before_source=tuple(king))]
