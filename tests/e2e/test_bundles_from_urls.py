"""Servers whose bundles are at a URL."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attendant.v1 import model_control_pb2_grpc
from attendant.v1.model_control_pb2 import LoadModelRequest, UnloadModelRequest
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_server.app import Server
from attendant_server.bundles import BundleError
from attendant_server.remote import downloads
from attendant_server.settings import Settings

from tests.support.application import TINY_BUNDLES
from tests.support.serving import LoopThread, Running, failure_of, running_server, wait_until
from tests.support.stores import BundleStore, bundle_store

KEY = "tiny-en-de/1"
WEIGHTS = f"{KEY}/weights.fp32.bin"


@pytest.fixture(autouse=True)
def _no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "FIRST_DELAY_SECONDS", 0.001)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BundleStore]:
    shutil.copytree(TINY_BUNDLES / "tiny-en-de", tmp_path / "store" / "tiny-en-de")
    with bundle_store(tmp_path / "store") as running:
        yield running


def settings_of(store: BundleStore, **values: Any) -> Settings:
    """Settings for a server on the store, with one cache for all of a test."""
    defaults: dict[str, Any] = {
        "bundles": store.url,
        "bundles_cache_dir": str(store.root.parent / "cache"),
        "host": "127.0.0.1",
        "port": 0,
        "metrics_host": "127.0.0.1",
        "metrics_port": 0,
        "lame_duck_seconds": 0.0,
        "num_threads": 1,
        "precision": "fp32",
        "try_bundles": "never",
    }
    return Settings(**(defaults | values))


@pytest.fixture
def serve(loop: LoopThread, store: BundleStore) -> Iterator[Callable[..., Running]]:
    """Starts servers on the store, which share a cache."""
    with ExitStack() as stack:
        yield lambda **values: stack.enter_context(
            running_server(loop, settings_of(store, **values))
        )


def translation(server: Running, model: str = "") -> str:
    answer: Any = server.translation.Translate(TranslateRequest(model=model, texts=["The dog."]))
    return str(answer.translations[0].hypotheses[0].text)


def add_version(store: BundleStore, version: str) -> None:
    folder = shutil.copytree(store.root / KEY, store.root / "tiny-en-de" / f"{version}.new")
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"version": "1"', f'"version": "{version}"'))
    folder.rename(store.root / "tiny-en-de" / version)


def test_a_server_translates_with_a_bundle_whose_download_was_cut(serve, store):
    store.faults[WEIGHTS] = [("cut", 50_000)]
    server = serve()
    assert translation(server) == translation(serve(bundles=TINY_BUNDLES, models=(KEY,)))
    assert server.metric("attendant_bundle_downloads_total", result="completed") == 1
    assert server.metric("attendant_bundle_downloads_total", result="interrupted") == 1
    size = server.metric("attendant_bundles_cache_bytes")
    assert (TINY_BUNDLES / WEIGHTS).stat().st_size < size
    assert size < server.metric("attendant_max_bundles_cache_bytes")
    assert server.metric("attendant_downloaded_bytes_total") > 0

    store.faults[""] = [500] * 99  # without a connection, the cache serves
    assert translation(serve()) == translation(server)


def test_new_versions_of_a_url_are_found_and_failed_downloads_are_tried_again(serve, store, caplog):
    server = serve(watch_bundles_seconds=0.02)
    store.faults["tiny-en-de/2/weights.fp32.bin"] = [404]
    add_version(store, "2")
    wait_until(lambda: "tiny-en-de/2" in server.server.models())
    wait_until(lambda: server.metric("attendant_model_changes_total", result="loaded") == 1)
    assert server.metric("attendant_model_changes_total", result="failed") == 1
    assert translation(server, "tiny-en-de/2") == translation(server, "tiny-en-de/1")
    shutil.rmtree(store.root / "tiny-en-de" / "2")
    wait_until(lambda: server.metric("attendant_model_changes_total", result="unloaded") == 1)


def test_models_of_a_url_are_loaded_on_request_and_faults_name_no_path(serve, store, tmp_path):
    server = serve(model_control="on", models=("tiny-en-de/1",))
    control = model_control_pb2_grpc.ModelControlServiceStub(server.channel)
    add_version(store, "2")
    request = LoadModelRequest(model="tiny-en-de/2")
    store.faults["tiny-en-de/2/weights.fp32.bin"] = ["wrong", "wrong"]
    details = failure_of(control.LoadModel, request).details()
    assert "tiny-en-de/2/weights.fp32.bin: does not have the size and SHA-256" in details
    assert control.LoadModel(request).model.version == "2"
    [weights] = (tmp_path / "cache").glob("*/fp32/tiny-en-de/2/weights.fp32.bin")
    assert control.UnloadModel(UnloadModelRequest(model="tiny-en-de/2")).model
    weights.write_bytes(bytes(weights.stat().st_size))
    details = failure_of(control.LoadModel, request).details()
    assert "tiny-en-de/2/weights.fp32.bin: its SHA-256 is not" in details
    assert str(tmp_path) not in details


def test_a_changed_bundle_of_the_same_version_is_refused_while_the_old_one_serves(serve, store):
    server = serve(watch_bundles_seconds=0.02)
    path = store.root / KEY / "manifest.json"
    path.write_text(path.read_text().replace('"license": "', '"license": "X'))
    wait_until(lambda: server.metric("attendant_model_changes_total", result="failed") > 0)
    assert translation(server)
    with pytest.raises(BundleError, match="has changed since the version was downloaded"):
        Server(settings_of(store))
