"""Models are imported by their names on a hub: what is downloaded, recorded, cached and refused."""

import io
import os
import re
import shutil
import subprocess
import sys

import pytest
from attendant_export.__main__ import main
from attendant_export.importers.families import read_model
from attendant_export.importers.sources import open_checkpoint
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import write_json, write_sentence_transformer
from tests.support.marian_checkpoints import write_generation, write_marian
from tests.support.model_hub import COMMIT, NAME, SIGNATURE, TOKEN

pytestmark = pytest.mark.usefixtures("very_few_texts")

NEEDED = {
    "config.json",
    "README.md",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def test_a_model_is_imported_by_its_name_with_its_commit_and_licence(hub, import_, capsys):
    folder, manifest = import_(NAME)
    assert (manifest.name, manifest.license) == ("tiny-bert", "cc0-1.0")
    origin = manifest.provenance.imported_from
    assert (origin.source, origin.revision) == (NAME, COMMIT)
    assert {file.path for file in origin.files} == NEEDED
    assert {request.token for request in hub.requests if request.file == "config.json"} == {
        f"Bearer {TOKEN}"
    }
    main(["inspect", folder])
    assert f"from {NAME}, revision {COMMIT}" in capsys.readouterr().out


def test_only_files_that_the_importer_reads_are_downloaded(hub, import_):
    model = hub.folders[NAME]
    for name in ("pytorch_model.bin", "tf_model.h5", "vocab.txt", "model.onnx"):
        (model / name).write_bytes(b"not needed")
    (model / "onnx").mkdir()
    (model / "onnx" / "config.json").write_text("{}")
    import_(NAME)
    assert sorted(hub.downloads()) == sorted(NEEDED)


def test_a_second_import_downloads_nothing(hub, import_):
    import_(NAME)
    hub.requests.clear()
    import_(NAME, "--name", "again")
    assert [(r.method, r.file) for r in hub.requests] == [("HEAD", "config.json")]


def test_a_folder_of_sentence_transformers_has_its_modules(hub, import_, tmp_path):
    mean = {"pooling_mode_mean_tokens": True}
    hub.folders["st"] = write_sentence_transformer(tmp_path / "st", mean, normalizes=True)
    _, manifest = import_("st")
    assert manifest.embedding.normalize
    modules = {"modules.json", "sentence_bert_config.json", "1_Pooling/config.json"}
    assert set(hub.downloads()) == NEEDED | modules


def test_a_translation_model_has_its_tokenizers_and_the_name_that_states_its_languages(
    hub, tmp_path
):
    name = "Helsinki-NLP/opus-mt-en-fr"
    hub.folders[name] = write_generation(write_marian(tmp_path / "folder"), num_beams=4)
    checkpoint = open_checkpoint(name)
    assert read_model(checkpoint).family == "marian"
    assert checkpoint.name == "opus-mt-en-fr"
    files = {"source.spm", "target.spm", "vocab.json", "generation_config.json"}
    assert files < set(hub.downloads()) == {file.path for file in checkpoint.used_files()}


def test_sharded_weights_are_downloaded_by_their_index(hub, import_):
    model = hub.folders[NAME]
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for shard in sorted(set(names.values())):
        save_file({n: t for n, t in tensors.items() if names[n] == shard}, model / shard)
    write_json(model / "model.safetensors.index.json", {"weight_map": names})
    (model / "model-fp16.safetensors").write_bytes(b"not needed")
    import_(NAME)
    weights = {file for file in hub.downloads() if "safetensors" in file}
    assert weights == {*names.values(), "model.safetensors.index.json"}


def test_pickled_weights_are_downloaded_if_there_are_no_others(hub, import_):
    import torch

    model = hub.folders[NAME]
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    import_(NAME)
    assert "pytorch_model.bin" in hub.downloads()


def test_weights_of_an_unsupported_family_are_not_downloaded(hub, refusal):
    write_json(hub.folders[NAME] / "config.json", {"model_type": "bloom"})
    assert "model_type is 'bloom', which is not supported" in refusal(NAME)
    assert set(hub.downloads()) == {"config.json", "README.md"}


def test_a_cut_download_is_resumed_where_it_was_cut(hub, import_, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.cuts["model.safetensors"] = 1
    _, manifest = import_(NAME)
    size = (hub.folders[NAME] / "model.safetensors").stat().st_size
    ranges = [r.range for r in hub.requests if (r.method, r.file) == ("GET", "model.safetensors")]
    assert ranges == [None, f"bytes={size // 2 // 1000 * 1000}-"]
    sizes = {file.path: file.size_bytes for file in manifest.provenance.imported_from.files}
    assert sizes["model.safetensors"] == size


def test_bars_on_a_terminal_name_files_and_no_signed_urls(hub, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    open_checkpoint(NAME).path("model.safetensors")
    shown = terminal.getvalue()
    assert re.search(r"config\.json: +\d+%", shown), shown
    assert re.search(r"model\.safetensors: +\d+%", shown), shown
    assert SIGNATURE[-10:] not in shown


def test_an_import_after_a_failed_download_continues_with_the_missing_file(
    hub, import_, refusal, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.cuts["model.safetensors"] = 100
    message = refusal(NAME)
    assert f"{NAME}: model.safetensors cannot be downloaded from {hub.url}: " in message
    assert SIGNATURE not in message
    hub.cuts.clear()
    hub.requests.clear()
    import_(NAME)
    assert set(hub.downloads()) == NEEDED - {"config.json", "README.md"}


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_cached_model_is_imported_without_the_hub(
    revision, hub, import_, unreachable, monkeypatch
):
    import_(NAME, "--revision", revision)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _, manifest = import_(NAME, "--revision", revision, "--name", "offline")
    assert manifest.provenance.imported_from.revision == COMMIT
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    unreachable()
    import_(NAME, "--revision", revision, "--name", "unreachable")
    assert hub.requests == []


def test_a_model_that_is_not_cached_is_refused_without_the_hub(
    hub, refusal, unreachable, monkeypatch, tmp_path
):
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refusal(NAME)
    assert f"{NAME}: no such folder, and not in the cache {cache}: config.json cannot" in message
    assert message.endswith("HF_HUB_OFFLINE is set\n")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    unreachable()
    message = refusal(NAME)
    assert f"{NAME}: no such folder, and not in the cache {cache}: config.json cannot" in message
    assert "Connection refused" in message


def test_an_incomplete_cache_is_refused_without_the_hub(hub, import_, refusal, monkeypatch):
    """It must not pass for a model without the files that the cache lacks."""
    import_(NAME)
    shutil.rmtree(next(hub.folders[NAME].parent.glob("cache/*/.no_exist")))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refusal(NAME)
    assert f"{NAME}: not in the cache " in message
    assert re.search(r"cache: [a-z_.]+ cannot be downloaded from ", message)


def test_the_command_reads_the_variables_of_the_library_and_logs_no_urls_and_bars(hub, tmp_path):
    hub.cuts["model.safetensors"] = 1
    home = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url}
    environment = {name: v for name, v in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-m", "attendant_export", "import", NAME]

    def run(bundles, **variables):
        return subprocess.run(
            [*command, "--bundles-dir", str(tmp_path / bundles)],
            env=environment | home | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    first = run("first")
    assert first.returncode == 0
    stages = {"verifying fp32", "comparing with the original implementation"}
    assert set(first.stderr.splitlines()) <= stages
    assert all(request.token is None for request in hub.requests)
    hub.requests.clear()
    assert run("second", HF_HUB_OFFLINE="1").returncode == 0
    assert hub.requests == []
    cache = tmp_path / "other"
    refused = run("third", HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(cache))
    assert refused.returncode == 2
    assert f"not in the cache {cache}" in refused.stderr


def test_a_bundle_is_verified_against_the_commit_that_was_imported(
    hub, import_, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("transformers")
    folder, _ = import_(NAME)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "other-cache"))
    hub.requests.clear()

    main(["verify", folder, "--against", NAME])

    assert sorted(hub.downloads()) == sorted(NEEDED)
    assert (
        " texts have other token ids; the cosine of fp32 hidden states" in capsys.readouterr().out
    )
