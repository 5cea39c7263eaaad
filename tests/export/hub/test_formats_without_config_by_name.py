"""Models of formats that are found by the names of their files are imported from a hub."""

import shutil

import pytest
from attendant_export.importers.families import read_model
from attendant_export.importers.imported import ImportedTranslator
from attendant_export.importers.sources import open_checkpoint
from huggingface_hub import constants

from tests.support.ctranslate2_folders import write_folder
from tests.support.imports import read_translator
from tests.support.marian_files import write_marian_folder, write_options
from tests.support.model_hub import COMMIT, FILE_LIST, NAME
from tests.support.opennmt_py_files import write_checkpoint
from tests.support.static_checkpoints import word_piece, write_static_transformer

pytestmark = pytest.mark.usefixtures("very_few_texts")

STUDENT, CONVERTED, STATIC = "acme/student", "acme/converted", "acme/static"
OPENNMT_PY = "acme/opennmt-py"


@pytest.fixture
def student(hub, tmp_path):
    """The folder of a model of Marian on the hub, with files that the import does not need."""
    folder = write_options(write_marian_folder(tmp_path / "enfr-student"), beam_size=4)
    (folder / "speed.txt").write_text("fast")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "other.spm").write_text("not at the top")
    hub.folders[STUDENT] = folder
    return folder


def test_a_model_of_marian_is_imported_by_its_name(hub, student, import_):
    _, manifest = import_(STUDENT, "--license", "MPL-2.0", "--max-tokens", "12")
    origin = manifest.provenance.imported_from
    assert (origin.source, origin.revision, origin.family) == (STUDENT, COMMIT, "marian-nmt")
    assert manifest.decoding.beam_size == 4
    needed = {path.name for path in student.iterdir()} - {"speed.txt", "onnx"}
    assert {file.path for file in origin.files} == needed
    assert set(hub.downloads()) - needed <= {FILE_LIST, "README.md"}


def test_a_cached_model_of_marian_is_read_without_the_hub(hub, student, unreachable, monkeypatch):
    expected = read_translator(student)
    assert read_model(open_checkpoint(STUDENT)).family == expected.family
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = read_model(open_checkpoint(STUDENT))
    assert isinstance(offline, ImportedTranslator)
    assert offline.decoding == expected.decoding
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    unreachable()
    assert open_checkpoint(STUDENT, COMMIT).names() == sorted(
        path.name for path in student.iterdir() if path.is_file()
    )
    assert hub.requests == []


def test_static_embeddings_in_the_folder_of_a_module_are_imported_by_name(hub, tmp_path, import_):
    folder = write_static_transformer(tmp_path / "static", word_piece())
    (folder / "0_StaticEmbedding" / "model.onnx").write_text("not needed")
    hub.folders[STATIC] = folder
    _, manifest = import_(STATIC)
    assert manifest.provenance.imported_from.family == "static-embedding"
    files = {"tokenizer.json", "model.safetensors"}
    assert {f"0_StaticEmbedding/{file}" for file in files} <= set(hub.downloads())
    assert "0_StaticEmbedding/model.onnx" not in hub.downloads()


def test_an_import_without_the_hub_needs_files_that_are_listed_but_not_cached(
    hub, student, refusal, monkeypatch
):
    """A first import that was cut must not pass for a model without a shortlist."""
    checkpoint = open_checkpoint(STUDENT)
    shortlist = next(name for name in checkpoint.names() if name.startswith("lex."))
    read_model(checkpoint)
    (checkpoint.folder / shortlist).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert f"{shortlist} cannot be downloaded from" in refusal(STUDENT, "--license", "MIT")


def test_an_import_without_the_hub_needs_the_list_of_files(hub, student, refusal, monkeypatch):
    folder = open_checkpoint(STUDENT).folder
    shutil.rmtree(folder.parents[1] / ".attendant", ignore_errors=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "the list of files cannot be downloaded" in refusal(STUDENT, "--license", "MIT")


@pytest.mark.parametrize("version", [5, 6])
def test_a_folder_of_ctranslate2_is_imported_by_its_name(version, hub, tmp_path):
    hub.folders[CONVERTED] = write_folder(tmp_path / "converted", version)
    checkpoint = open_checkpoint(CONVERTED)
    assert read_model(checkpoint, "characters").family == "ctranslate2"
    files = {file.path for file in checkpoint.used_files()}
    assert files == {path.name for path in hub.folders[CONVERTED].iterdir()}


def test_the_tokenizer_of_a_folder_of_ctranslate2_is_found_by_its_ending(hub, tmp_path, refusal):
    hub.folders[CONVERTED] = folder = write_folder(tmp_path / "converted")
    for name in ("a.spm", "b.model"):
        (folder / name).write_bytes(b"")
    message = refusal(CONVERTED, "--license", "MIT")
    assert "has several: a.spm, b.model: give --tokenizer" in message
    assert "a.spm" not in hub.downloads()


def test_a_checkpoint_of_opennmt_py_is_imported_by_its_name(hub, tmp_path):
    hub.folders[OPENNMT_PY] = folder = write_checkpoint(tmp_path / "opennmt-py")
    (folder / "train.log").write_text("not needed")
    checkpoint = open_checkpoint(OPENNMT_PY)
    assert read_model(checkpoint, "characters").family == "opennmt-py"
    assert [file.path for file in checkpoint.used_files()] == ["model.pt"]
    assert set(hub.downloads()) == {FILE_LIST, "model.pt"}


def test_several_checkpoints_of_opennmt_py_are_refused_before_a_download(hub, tmp_path, refusal):
    hub.folders[OPENNMT_PY] = folder = write_checkpoint(tmp_path / "opennmt-py")
    shutil.copy(folder / "model.pt", folder / "model_step_2.pt")
    message = refusal(OPENNMT_PY, "--license", "MIT")
    assert f"{OPENNMT_PY} has several checkpoints: model.pt, model_step_2.pt; download" in message
    assert "model.pt" not in hub.downloads()


def test_the_list_of_files_is_asked_for_only_if_it_is_needed(hub, import_):
    import_(NAME)
    assert FILE_LIST not in hub.downloads()


def test_weights_of_a_model_without_configuration_and_vocabulary_are_not_downloaded(hub, refusal):
    (hub.folders[NAME] / "config.json").rename(hub.folders[NAME] / "weights.bin")
    assert f"{NAME}: config.json is missing" in refusal(NAME)
    assert set(hub.downloads()) <= {FILE_LIST, "config.json"}
