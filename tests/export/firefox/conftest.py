"""A registry of Firefox Translations with one model, and imports from it by the command."""

import pytest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest

from tests.support.firefox_files import serving_files
from tests.support.marian_files import write_marian_folder


@pytest.fixture(autouse=True)
def on_one_thread(quiet_threads):
    """Every test of this folder."""


@pytest.fixture
def student(tmp_path):
    """The folder of a model."""
    return write_marian_folder(tmp_path / "student")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache of models, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "attendant" / "firefox"


@pytest.fixture
def firefox(student, cache, monkeypatch):
    """A registry with one model, en-fr."""
    with serving_files() as files:
        files.add_model(student)
        monkeypatch.setenv("ATTENDANT_FIREFOX_REGISTRY", files.registry_url)
        monkeypatch.setattr("time.sleep", lambda _: None)
        yield files


@pytest.fixture
def import_(tmp_path, capsys):
    """Imports a model; returns the folder of the bundle and its manifest."""

    def run(*arguments):
        limits = ("--max-tokens", "12", "--bundles-dir", str(tmp_path / "bundles"))
        main(["import", *arguments, *limits])
        folder = tmp_path / "bundles" / capsys.readouterr().out.strip()
        return folder, read_manifest(folder)

    return run


@pytest.fixture
def refusal(cache, refusal):
    """Imports a model, which must fail with one line and leave no bundle; returns the line."""
    return refusal
