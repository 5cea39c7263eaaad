"""A model hub with one model, and imports from it by the command."""

import pytest
from attendant_export.__main__ import main
from attendant_export.bundle.manifest import read_manifest
from huggingface_hub import constants

from tests.support.checkpoints import write_checkpoint
from tests.support.model_hub import NAME, TOKEN, running_hub


@pytest.fixture(autouse=True)
def on_one_thread(quiet_threads):
    """Every test of this folder."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model, as the library would find it by HF_ENDPOINT, HF_HUB_CACHE, HF_TOKEN."""
    with running_hub() as running:
        running.folders[NAME] = write_checkpoint(tmp_path / "model", "bert")
        use_endpoint(monkeypatch, running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


def use_endpoint(monkeypatch, url):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def unreachable(monkeypatch):
    """Makes the hub unreachable when called. The library then retries without waiting."""

    def stop():
        use_endpoint(monkeypatch, "http://127.0.0.1:1")
        monkeypatch.setattr("time.sleep", lambda _: None)

    return stop


@pytest.fixture
def import_(tmp_path, capsys):
    """Imports a model; returns the folder of the bundle and its manifest."""

    def run(*arguments):
        main(["import", *arguments, "--bundles-dir", str(tmp_path / "bundles")])
        folder = capsys.readouterr().out.strip()
        return folder, read_manifest(tmp_path / "bundles" / folder)

    return run


@pytest.fixture
def refusal(refusal):
    """Imports a model, which must fail with one line and leave no bundle; returns the line."""

    def run(*arguments):
        message = refusal(*arguments)
        assert TOKEN not in message
        return message

    return run
