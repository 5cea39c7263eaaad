"""Names of models that cannot be imported, and faults of the hub, of the cache and of the disk."""

import shutil
import sys

import pytest

from tests.support.model_hub import NAME


def test_a_name_that_is_neither_a_folder_nor_a_model_is_refused_as_both(hub, refusal):
    message = refusal("models/missing")
    assert f"models/missing: no such folder, and no such model at {hub.url}; if it" in message


def test_an_unknown_revision_is_named(hub, refusal):
    message = refusal(NAME, "--revision", "v2")
    assert f"{NAME}: {hub.url} has no revision v2 of this model" in message


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_asks_for_its_terms_and_a_token(status, hub, refusal):
    hub.errors[NAME] = (status, {"X-Error-Code": "GatedRepo"})
    message = refusal(NAME)
    assert f"is gated: accept its terms at {hub.url}/{NAME}, and set HF_TOKEN" in message


def test_a_refused_token_is_named_without_its_value(hub, refusal):
    hub.errors[NAME] = (401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    assert "status 401; check HF_TOKEN" in refusal(NAME)


def test_a_hub_that_fails_is_named_with_its_status(hub, refusal, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.errors[NAME] = (503, {})
    assert f"config.json cannot be downloaded from {hub.url}: status 503" in refusal(NAME)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(name, hub, refusal):
    (hub.folders[NAME] / name).unlink()
    message = refusal(NAME)
    assert f"{NAME}: {name} is missing" in message or f"{NAME} has no weights: none of" in message


def test_a_model_without_a_licence_needs_one_by_option(hub, refusal, import_):
    (hub.folders[NAME] / "README.md").unlink()
    assert f"{NAME}: no card states the licence" in refusal(NAME)
    assert import_(NAME, "--license", "MIT")[1].license == "MIT"


def test_a_full_disk_is_named(hub, refusal, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage)
        assert f"the disk of the cache {tmp_path / 'cache'} has no space for" in refusal(NAME)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    assert f"the disk of the cache {tmp_path / 'cache'} has no space for" in refusal(NAME)


@pytest.mark.parametrize("url", ["(…)safetensors?Signature=abc", "https://cdn/x?Signature=abc"])
def test_a_url_in_an_error_of_the_library_is_not_shown(url, hub, refusal, monkeypatch):
    def fail(*_, **__):
        raise OSError(f"Consistency check failed: has size 5 ({url}).\nPlease retry")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    assert refusal(NAME).endswith(f"from {hub.url}: Consistency check failed: has size 5\n")


@pytest.mark.parametrize(
    "source", ["../model", "./model", "/no/such/folder", "a/b/c", "bergamot:en-de", "a b", "ü/b"]
)
def test_a_source_of_another_form_is_refused(source, hub, refusal):
    assert f"{source}: no such folder, and not a name on the model hub" in refusal(source)
    assert hub.requests == []


def test_a_file_of_a_folder_is_no_source(hub, refusal, tmp_path):
    file = hub.folders[NAME] / "config.json"
    assert f"{file} is no file of word vectors" in refusal(str(file), "--license", "mit")


def test_a_folder_wins_over_a_model_and_has_no_revision(hub, import_, refusal, monkeypatch):
    monkeypatch.chdir(hub.folders[NAME].parent)
    _, manifest = import_("model")
    origin = manifest.provenance.imported_from
    assert (origin.source, origin.revision) == ("model", "")
    assert hub.requests == []
    message = refusal("model", "--revision", "main")
    assert "--revision is for models on the hub, but model is a folder" in message


def test_without_the_library_the_extra_is_named(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "attendant_export.importers.hub", raising=False)
    message = refusal("acme/model")
    assert "acme/model: no such folder, and a model on the hub needs huggingface_hub" in message
    assert "pip install 'attendant-export[import]'" in message
