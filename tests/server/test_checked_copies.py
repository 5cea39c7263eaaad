"""A model is loaded from the bytes that were hashed, whatever happens to its files."""

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from attendant_server import loading
from attendant_server.bundles import Bundle, BundleError, read_bundle
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.loading import LoadedModel, ModelLoader
from attendant_server.observability.metrics import NoMetrics
from attendant_server.runtime.graph_rules import check_graphs
from attendant_server.settings import Settings

from tests.support.processes import port_of, server_process

BUNDLE = Path(__file__).parents[1] / "recorded/bundles/tiny-en-de/1"
WEIGHTS = "weights.int8.bin"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A copy of a bundle. Temporary folders are made in ``tmp_path / "temporary"``."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    folder = shutil.copytree(BUNDLE, tmp_path / "bundles" / "tiny-en-de" / "1")
    return read_bundle(folder, "int8", "cpu")


def load(bundle: Bundle) -> LoadedModel:
    metrics = NoMetrics()
    metrics.add_model(bundle.key, "translation", "int8", [])
    return ModelLoader(Settings(num_threads=1), metrics).load(bundle)


def translation_by(model: LoadedModel) -> list[int]:
    [scheduler] = model.schedulers
    source = model.source_tokenizer.encode("The dog sees the man.").token_ids
    call = TranslateCall([source], SearchOptions(32, beam_size=2))
    scheduler.submit(call)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    return list(call.future.result()[0][0].token_ids)


def overwrite(bundle: Bundle) -> None:
    """Overwrite the weights in place."""
    path = bundle.directory / WEIGHTS
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


def test_weights_that_are_overwritten_while_a_bundle_is_loaded_change_nothing(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    expected = translation_by(load(bundle))

    def overwrite_and_check(copy: Bundle) -> None:
        overwrite(bundle)
        check_graphs(copy)

    monkeypatch.setattr(loading, "check_graphs", overwrite_and_check)
    assert translation_by(load(bundle)) == expected


def test_weights_that_are_overwritten_later_change_nothing(bundle: Bundle):
    model = load(bundle)
    expected = translation_by(model)
    overwrite(bundle)
    assert translation_by(model) == expected
    with pytest.raises(BundleError, match="its SHA-256 is not the one in the manifest"):
        load(bundle)


def test_a_server_survives_that_its_bundle_is_truncated(bundle: Bundle):
    from attendant_client import Client

    with server_process(bundle.directory.parents[1], "--num-threads", "1") as process:
        with Client(f"127.0.0.1:{port_of(process)}") as client:
            before = client.translate("The dog sees the man.", model="tiny-en-de").text
            for path in bundle.directory.iterdir():
                with path.open("r+b") as file:
                    file.truncate(0)
            after = client.translate("The dog sees the man.", model="tiny-en-de").text
            assert after == before
        assert process.poll() is None


def test_copies_are_removed_when_the_model_is_loaded_or_refused(bundle: Bundle):
    temporary = Path(tempfile.gettempdir())
    load(bundle)
    assert not list(temporary.iterdir())
    overwrite(bundle)
    with pytest.raises(BundleError):
        load(bundle)
    assert not list(temporary.iterdir())


def test_only_files_that_are_loaded_are_copied_and_only_for_this_user(bundle: Bundle):
    with bundle.checked_copy() as copy:
        assert copy.copies is not None
        assert copy.copies.stat().st_mode & 0o077 == 0
        names = {path.name for path in copy.copies.iterdir()}
    assert {WEIGHTS, "tokenizer.json", "encoder.int8.onnx", "scorer.int8.onnx"} < names
    assert names.isdisjoint({"weights.fp32.bin", "encoder.fp32.onnx", "MODEL_CARD.md"})


def test_a_bundle_without_room_for_its_copies_is_refused_with_the_remedy(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(BundleError, match="has 1000 free bytes, .* TMPDIR names another folder"):
        load(bundle)
