"""Models of Firefox Translations are imported by their languages: downloads, cache, records."""

import gzip
import hashlib
import io
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from attendant_export.__main__ import main
from attendant_export.importers.sources import open_checkpoint

from tests.support.firefox_files import REGISTRY, Request
from tests.support.imports import read_translator
from tests.support.marian_files import write_marian_folder

pytestmark = pytest.mark.usefixtures("very_few_texts")

MODEL = "model.enfr.intgemm.alphas.bin"


def names(checkpoint):
    return sorted(path.name for path in checkpoint.folder.iterdir())


def path_of(firefox, role, pair="en-fr"):
    path = firefox.models[pair][0]["files"][role]["path"]
    assert isinstance(path, str)
    return path


def test_a_model_is_imported_by_its_languages(firefox, student, import_, capsys):
    folder, manifest = import_("firefox:en-fr")
    assert (manifest.name, manifest.license) == ("firefox-en-fr", "MPL-2.0")
    languages = manifest.source_languages, manifest.target_languages
    assert [[each.tag for each in side] for side in languages] == [["en"], ["fr"]]
    (credit,) = manifest.credits
    assert "https://github.com/mozilla/translations, which states the licence MPL-2.0" in credit
    origin = manifest.provenance.imported_from
    model_hash = firefox.models["en-fr"][0]["files"]["model"]["uncompressedHash"]
    assert (origin.source, origin.revision) == ("firefox:en-fr", model_hash)
    assert origin.family == "marian-nmt"
    assert {file.path: file.sha256 for file in origin.files} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in student.iterdir()
    }
    assert credit in (folder / "MODEL_CARD.md").read_text()
    main(["verify", str(folder)])
    assert "fp32 beam4: " in capsys.readouterr().out


def test_the_model_is_that_of_the_files(firefox, student):
    expected, found = (
        read_translator(student),
        read_translator(open_checkpoint("firefox:en-fr").folder),
    )
    for name, tensor in expected.model.state_dict().items():
        assert tensor.equal(found.model.state_dict()[name])
    assert expected.shortlists is not None
    assert found.shortlists is not None
    assert (expected.shortlists.translations == found.shortlists.translations).all()


def test_pairs_are_written_as_languages_are(firefox, tmp_path, import_):
    folder = write_marian_folder(
        tmp_path / "own", has_separate_vocabularies=True, tied_embeddings_all=False,
        tied_embeddings=True, has_shortlist=False,
    )  # fmt: skip
    firefox.add_model(folder, "en-zh_hant")
    _, manifest = import_("firefox:en-zh-Hant")
    assert (manifest.name, manifest.target_languages[0].tag) == ("firefox-en-zh-hant", "zh-Hant")
    assert set(firefox.downloads()) == {f"{path.name}.gz" for path in folder.iterdir()}
    assert open_checkpoint("firefox:EN-ZH_HANT").source == "firefox:en-zh_hant"


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ({"tiny": "Release Android", "base-memory": "Release Desktop"}, "base-memory"),
        ({"tiny": "Release", "base": "Nightly", "base-memory": None}, "tiny"),
        ({"tiny": "Release Android", "base": "Release"}, "base"),
        ({"tiny": "Release", "base": "Release"}, "base"),
        ({"tiny": "Release Beta", "base": "Nightly"}, "tiny"),
    ],
)
def test_the_released_model_is_taken(statuses, expected, firefox, tmp_path):
    hashes = {}
    for number, (architecture, status) in enumerate(statuses.items(), 1):
        folder = write_marian_folder(tmp_path / architecture, enc_depth=number)
        entry = firefox.add_model(folder, "en-de", architecture, status)
        hashes[architecture] = entry["files"]["model"]["uncompressedHash"]
    assert open_checkpoint("firefox:en-de").revision == hashes[expected]
    for architecture, hash_ in hashes.items():
        assert open_checkpoint("firefox:en-de", architecture).revision == hash_
        assert open_checkpoint("firefox:en-de", hash_).revision == hash_


def test_a_second_import_downloads_the_registry_alone(firefox, student):
    checkpoint = open_checkpoint("firefox:en-fr")
    assert names(checkpoint) == sorted(path.name for path in student.iterdir())
    firefox.requests.clear()
    assert open_checkpoint("firefox:en-fr").folder == checkpoint.folder
    assert firefox.requests == [Request(REGISTRY, None)]


def test_a_cached_model_is_imported_without_a_connection(firefox, import_, monkeypatch, caplog):
    open_checkpoint("firefox:en-fr")
    firefox.requests.clear()
    firefox.answers[REGISTRY] = (503, {})
    caplog.set_level(logging.WARNING)
    _, manifest = import_("firefox:en-fr", "--name", "offline", "--license", "MIT")
    assert manifest.provenance.imported_from.source == "firefox:en-fr"
    assert manifest.license == "MIT"
    assert firefox.downloads() == []
    assert f"the registry {firefox.registry_url} cannot be reached: status 503; using that of" in (
        caplog.text
    )


def test_a_cut_download_is_resumed_where_it_was_cut(firefox):
    path = path_of(firefox, "model")
    firefox.cuts[path] = 2
    checkpoint = open_checkpoint("firefox:en-fr")
    ranges = [request.range for request in firefox.requests if request.path == path]
    size = len(firefox.contents[path])
    second = size // 2 + (size - size // 2) // 2
    assert ranges == [None, f"bytes={size // 2}-", f"bytes={second}-"]
    assert MODEL in names(checkpoint)


def test_the_next_import_resumes_a_download_that_failed(firefox, refusal, cache):
    path = path_of(firefox, "model")
    firefox.cuts[path] = 100
    assert f"{MODEL} cannot be downloaded from {firefox.url}/{path}: " in refusal("firefox:en-fr")
    firefox.cuts.clear()
    firefox.requests.clear()
    open_checkpoint("firefox:en-fr")
    (request,) = [request for request in firefox.requests if request.path == path]
    assert request.range is not None
    assert not list(cache.rglob("*.part"))


def test_a_server_without_ranges_sends_the_whole_file_again(firefox):
    firefox.has_ranges = False
    firefox.cuts[path_of(firefox, "model")] = 1
    assert MODEL in names(open_checkpoint("firefox:en-fr"))


def test_an_import_that_was_stopped_before_unpacking_begins_again(firefox, student, cache):
    folder = open_checkpoint("firefox:en-fr").folder
    (folder / MODEL).unlink()
    (folder / f"{MODEL}.part").write_bytes(firefox.contents[path_of(firefox, "model")])
    assert names(open_checkpoint("firefox:en-fr")) == names(open_checkpoint("firefox:en-fr"))
    assert (folder / MODEL).read_bytes() == (student / MODEL).read_bytes()


def test_a_damaged_file_of_the_cache_is_downloaded_again(firefox, student):
    folder = open_checkpoint("firefox:en-fr").folder
    (folder / MODEL).write_bytes(b"damaged")
    open_checkpoint("firefox:en-fr")
    assert (folder / MODEL).read_bytes() == (student / MODEL).read_bytes()


def test_files_may_be_stored_without_compression(firefox, student):
    for path, content in firefox.contents.items():
        firefox.contents[path] = gzip.decompress(content)
    folder = open_checkpoint("firefox:en-fr").folder
    assert (folder / MODEL).read_bytes() == (student / MODEL).read_bytes()


def test_redirects_are_followed(firefox):
    path = path_of(firefox, "vocab")
    firefox.contents["elsewhere"] = firefox.contents[path]
    firefox.answers[path] = (302, {"Location": f"{firefox.url}/elsewhere"})
    open_checkpoint("firefox:en-fr")
    assert "elsewhere" in firefox.downloads()


def test_bars_on_a_terminal_name_files(firefox, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    open_checkpoint("firefox:en-fr")
    assert f"{MODEL}:   0%" in terminal.getvalue()


def test_the_cache_is_in_the_home_folder_by_default(firefox, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = open_checkpoint("firefox:en-fr").folder
    assert Path(tmp_path / "home/.cache/attendant/firefox") in folder.parents


def test_a_file_without_a_stated_hash_is_downloaded_from_its_beginning(firefox, refusal):
    path = path_of(firefox, "vocab")
    firefox.cuts[path] = 9
    refusal("firefox:en-fr")
    firefox.cuts.clear()
    firefox.requests.clear()
    open_checkpoint("firefox:en-fr")
    assert [request.range for request in firefox.requests if request.path == path] == [None]


def test_a_file_of_another_size_than_stated_is_downloaded_again(firefox):
    content = (open_checkpoint("firefox:en-fr").folder / "vocab.enfr.spm").read_bytes()
    firefox.models["en-fr"][0]["files"]["vocab"]["uncompressedSize"] = len(content)
    path = open_checkpoint("firefox:en-fr").folder / "vocab.enfr.spm"
    path.write_bytes(content[:-1])
    assert (open_checkpoint("firefox:en-fr").folder / "vocab.enfr.spm").read_bytes() == content


def test_imports_of_one_model_at_the_same_time_have_the_same_files(firefox, student):
    firefox.cuts[path_of(firefox, "model")] = 1
    with ThreadPoolExecutor(4) as pool:
        folders = {each.folder for each in pool.map(open_checkpoint, ["firefox:en-fr"] * 4)}
    (folder,) = folders
    for path in student.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert len(firefox.downloads()) == len(list(student.iterdir())) + 1
