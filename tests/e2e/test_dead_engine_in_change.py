"""The engine dies while bundles are loaded beside it: callers are told, and no bundle is lost."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from attendant.v1 import model_control_pb2_grpc
from attendant.v1.model_control_pb2 import LoadModelRequest, UnloadModelRequest
from attendant.v1.model_pb2 import ListModelsRequest
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_server import restarts
from attendant_server.bundles import Bundle
from attendant_server.loading import LoadedModel, ModelLoader

from tests.support.serving import TIMEOUT_SECONDS, Running, metrics_page, wait_until
from tests.support.versions import add_version


@pytest.fixture
def root(tmp_path: Path, translation_bundle: Path) -> Path:
    """A folder with version 1 of a translation model."""
    add_version(translation_bundle, tmp_path, "1")
    return tmp_path


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Set once a bundle is being loaded beside served ones; the first such load never ends."""
    load, loading = ModelLoader.load, Event()

    def load_or_hang(self: ModelLoader, bundle: Bundle, while_serving: bool = False) -> LoadedModel:
        if while_serving and not loading.is_set():
            loading.set()
            Event().wait()
        return load(self, bundle)

    monkeypatch.setattr(ModelLoader, "load", load_or_hang)
    monkeypatch.setattr(restarts, "FIRST_DELAY_SECONDS", 0.01)
    return loading


def keys(server: Running) -> list[str]:
    listed = server.models.ListModels(ListModelsRequest()).models
    return [f"{model.name}/{model.version}" for model in listed]


def let_engine_die(server: Running) -> None:
    engine = server.server.engine
    assert engine is not None
    assert engine.on_death is not None
    engine.abandon()
    engine.on_death()


def test_a_load_request_is_refused_and_its_model_listed_no_more(
    start: Callable[..., Running], root: Path, translation_bundle: Path, loading: Event
):
    server = start(bundles=root, model_control="on")
    add_version(translation_bundle, root, "2")
    control: Any = model_control_pb2_grpc.ModelControlServiceStub(server.channel)
    request = LoadModelRequest(model="tiny-en-de/2")
    call = control.LoadModel.future(request, timeout=TIMEOUT_SECONDS)
    assert loading.wait(TIMEOUT_SECONDS)
    let_engine_die(server)
    assert call.code() == grpc.StatusCode.UNAVAILABLE
    assert keys(server) == ["tiny-en-de/1"]


def test_a_refresh_is_done_again_with_the_next_engine(
    start: Callable[..., Running], root: Path, translation_bundle: Path, loading: Event
):
    server = start(bundles=root, watch_bundles_seconds=0.05)
    add_version(translation_bundle, root, "2")
    assert loading.wait(TIMEOUT_SECONDS)
    let_engine_die(server)
    wait_until(lambda: keys(server) == ["tiny-en-de/1", "tiny-en-de/2"])
    add_version(translation_bundle, root, "3")
    wait_until(lambda: "tiny-en-de/3" in keys(server))


def test_the_next_engine_starts_without_a_served_bundle_that_was_removed(
    start: Callable[..., Running], root: Path, translation_bundle: Path, loading: Event
):
    add_version(translation_bundle, root, "2")
    server = start(bundles=root)
    shutil.rmtree(root / "tiny-en-de" / "1")
    let_engine_die(server)
    wait_until(lambda: keys(server) == ["tiny-en-de/2"])
    server.loop.run(asyncio.wait_for(server.server.lifecycle.refresh(), TIMEOUT_SECONDS))
    assert keys(server) == ["tiny-en-de/2"]


def test_a_model_that_is_being_unloaded_leaves_no_series(
    start: Callable[..., Running], root: Path, translation_bundle: Path, loading: Event
):
    add_version(translation_bundle, root, "2")
    server = start(bundles=root, model_control="on")
    control: Any = model_control_pb2_grpc.ModelControlServiceStub(server.channel)
    translation: Any = server.translation
    with server.held_engine():
        request = TranslateRequest(model="tiny-en-de/1", texts=["The dog."])
        begun = translation.Translate.future(request, timeout=TIMEOUT_SECONDS)
        server.wait_for_queued(1)
        unload = UnloadModelRequest(model="tiny-en-de/1")
        unloading = control.UnloadModel.future(unload, timeout=TIMEOUT_SECONDS)
        wait_until(lambda: keys(server) == ["tiny-en-de/2"])
        let_engine_die(server)
        assert unloading.code() == begun.code() == grpc.StatusCode.UNAVAILABLE
    wait_until(lambda: 'version="1"' not in metrics_page(server.server))
    wait_until(lambda: server.metric("attendant_model_serving", model="tiny-en-de/2") == 1)
