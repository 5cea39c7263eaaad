"""The form of a source decides whether it is a folder or the name of a model on a hub."""

import sys

import pytest
from attendant_export.__main__ import main
from attendant_export.importers.sources import open_checkpoint

from tests.support.checkpoints import write_checkpoint


@pytest.fixture
def refusal(tmp_path, capsys):
    """Imports a source, which must fail with one line and leave no bundle; returns the message."""

    def run(*arguments):
        bundles = tmp_path / "bundles"
        with pytest.raises(SystemExit, match="2"):
            main(["import", *arguments, "--bundles-dir", str(bundles)])
        assert not bundles.exists()
        message = capsys.readouterr().err
        assert message.startswith("attendant-export: ")
        assert message.count("\n") == 1
        return message

    return run


@pytest.mark.parametrize(
    "source", ["../model", "./model", "/no/such/folder", "a/b/c", "firefox:en-de", "a b", "ü/b"]
)
def test_a_source_of_another_form_is_refused(source, refusal):
    assert f"{source}: no such folder, and not a name on the model hub" in refusal(source)


def test_a_file_is_no_source(refusal, tmp_path):
    file = write_checkpoint(tmp_path / "model", "bert") / "config.json"
    assert f"{file} is not a folder" in refusal(str(file))


def test_a_folder_wins_over_a_model_and_has_no_revision(refusal, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "acme" / "model", "bert")
    monkeypatch.chdir(tmp_path)
    checkpoint = open_checkpoint("acme/model")
    assert (checkpoint.source, checkpoint.revision) == ("model", "")
    message = refusal("acme/model", "--revision", "main")
    assert "--revision is for models on the hub, but acme/model is a folder" in message


def test_without_the_library_the_extra_is_named(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "attendant_export.importers.hub", raising=False)
    message = refusal("acme/model")
    assert "acme/model: no such folder, and a model on the hub needs huggingface_hub" in message
    assert "pip install 'attendant-export[import]'" in message
