"""Models that callers load and unload while the server runs."""

import re
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from attendant.v1 import model_control_pb2_grpc
from attendant.v1.embedding_pb2 import EmbedRequest
from attendant.v1.model_control_pb2 import LoadModelRequest, UnloadModelRequest
from attendant.v1.model_pb2 import MODEL_STATE_READY, GetModelRequest, ListModelsRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest, TranslateResponse
from attendant_server import memory_need
from attendant_server.bundles import Bundle, read_bundle
from attendant_server.loading import LoadedModel, ModelLoader
from attendant_server.memory_need import needed_bytes
from attendant_server.settings import Settings, SettingsError
from attendant_server.system.memory import HostMemory
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.support.serving import Running, failure_of, metrics_page, wait_until
from tests.support.versions import add_version, damage

TEXT = "The dog sees the king."


@pytest.fixture
def root(tmp_path: Path, translation_bundle: Path, embedding_bundle: Path) -> Path:
    """A folder with version 1 of a translation and of an embedding model."""
    for bundle in (translation_bundle, embedding_bundle):
        add_version(bundle, tmp_path, "1")
    return tmp_path


@pytest.fixture
def server(start: Callable[..., Running], root: Path) -> Running:
    return start(bundles=root, model_control="on")


def control(server: Running) -> Any:
    return model_control_pb2_grpc.ModelControlServiceStub(server.channel)


def load(server: Running, model: str) -> Any:
    return control(server).LoadModel(LoadModelRequest(model=model)).model


def unload(server: Running, model: str) -> str:
    return str(control(server).UnloadModel(UnloadModelRequest(model=model)).model)


def translate(server: Running, model: str = "") -> TranslateResponse:
    response: TranslateResponse = server.translation.Translate(
        TranslateRequest(model=model, texts=[TEXT], options=TranslateOptions(return_tokens=True))
    )
    return response


def engine_models(server: Running) -> Any:
    """The models that the engine runs, by the engine's names."""
    assert server.server.engine is not None
    return server.server.engine._models


def models(server: Running) -> dict[str, bool]:
    """Whether each model is the default of its name."""
    listed = server.models.ListModels(ListModelsRequest()).models
    return {f"{model.name}/{model.version}": model.is_default for model in listed}


def suppress_tokens_of(response: TranslateResponse) -> Callable[[Any], None]:
    """Changes a manifest so that its model answers otherwise than ``response``."""
    tokens = response.translations[0].hypotheses[0].tokens
    token_ids = sorted({token.id for token in tokens[:-1]})  # without EOS

    def change(manifest: Any) -> None:
        manifest["decoding"]["suppressedTokenIds"] = token_ids

    return change


def test_a_new_version_takes_the_calls_by_name_once_it_is_ready(
    server: Running, root: Path, translation_bundle: Path
):
    add_version(translation_bundle, root, "2")
    assert failure_of(translate, server, "tiny-en-de/2").code() == grpc.StatusCode.NOT_FOUND
    model = load(server, "tiny-en-de")
    assert (model.version, model.state, model.is_default) == ("2", MODEL_STATE_READY, True)
    assert models(server) == {"tiny-bert/1": True, "tiny-en-de/1": False, "tiny-en-de/2": True}
    assert translate(server).model == "tiny-en-de/2"
    assert translate(server, "tiny-en-de").model == "tiny-en-de/2"
    assert translate(server, "tiny-en-de/1").model == "tiny-en-de/1"
    assert server.metric("attendant_model_serving", model="tiny-en-de/2") == 1
    assert server.metric("attendant_model_changes_total", result="loaded") == 1


def test_an_unloaded_model_is_gone_with_its_metrics_and_its_memory(server: Running):
    translate(server)
    scheduler = weakref.ref(engine_models(server)["tiny-en-de/1"].schedulers[0])
    assert unload(server, "tiny-en-de") == "tiny-en-de/1"
    assert failure_of(translate, server).code() == grpc.StatusCode.NOT_FOUND
    assert models(server) == {"tiny-bert/1": True}
    assert scheduler() is None
    wait_until(lambda: 'model="tiny-en-de"' not in metrics_page(server.server))
    status = server.health.Check(
        HealthCheckRequest(service="attendant.v1.TranslationService")
    ).status
    assert status == HealthCheckResponse.NOT_SERVING
    assert server.health.Check(HealthCheckRequest()).status == HealthCheckResponse.SERVING
    server.embedding.Embed(EmbedRequest(texts=[TEXT]))
    assert load(server, "tiny-en-de/1").state == MODEL_STATE_READY
    assert translate(server).model == "tiny-en-de/1"
    assert server.metric("attendant_calls_total", model="tiny-en-de/1", code="OK") == 1


def test_a_server_without_models_is_not_ready(server: Running):
    unload(server, "tiny-en-de")
    unload(server, "tiny-bert")
    assert server.health.Check(HealthCheckRequest()).status == HealthCheckResponse.NOT_SERVING
    load(server, "tiny-bert")
    assert server.health.Check(HealthCheckRequest()).status == HealthCheckResponse.SERVING


def test_a_call_that_has_begun_ends_with_the_replaced_model(
    server: Running, root: Path, translation_bundle: Path
):
    before = translate(server)
    with server.held_engine():
        request = TranslateRequest(texts=[TEXT], options=TranslateOptions(return_tokens=True))
        begun = server.translation.Translate.future(request)
        server.wait_for_queued(1)
        add_version(translation_bundle, root, "1", suppress_tokens_of(before))
        assert load(server, "tiny-en-de/1").state == MODEL_STATE_READY
        wanted = server.models.GetModel(GetModelRequest(model="tiny-en-de")).model
        assert wanted.state == MODEL_STATE_READY
        later = server.translation.Translate.future(request)
    assert begun.result().translations == before.translations
    assert later.result().translations != before.translations
    assert translate(server).translations == later.result().translations
    wait_until(lambda: len(engine_models(server)) == 2)


def test_an_unloaded_model_finishes_its_calls_and_takes_no_new_ones(server: Running):
    with server.held_engine():
        begun = server.translation.Translate.future(TranslateRequest(texts=[TEXT]))
        server.wait_for_queued(1)
        unloading = control(server).UnloadModel.future(UnloadModelRequest(model="tiny-en-de"))
        wait_until(lambda: "tiny-en-de/1" not in models(server))
        assert failure_of(translate, server).code() == grpc.StatusCode.NOT_FOUND
        assert not unloading.done()
    assert begun.result().translations[0].hypotheses
    assert unloading.result().model == "tiny-en-de/1"


def test_loading_what_is_served_already_changes_nothing(server: Running):
    running = engine_models(server)["tiny-en-de/1"]
    load(server, "tiny-en-de")
    assert engine_models(server)["tiny-en-de/1"] is running
    assert server.metric("attendant_model_changes_total", result="loaded") == 0


def test_a_broken_bundle_replaces_nothing_and_its_fault_is_told(
    server: Running, root: Path, translation_bundle: Path
):
    before = translate(server)
    broken = add_version(translation_bundle, root, "1", suppress_tokens_of(before))
    damage(broken)
    failure = failure_of(load, server, "tiny-en-de/1")
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failure.details() == (
        "model: tiny-en-de/1/weights.fp32.bin: its SHA-256 is not the one in the manifest"
    )
    assert translate(server).translations == before.translations
    assert server.metric("attendant_model_changes_total", result="failed") == 1


@pytest.mark.parametrize("damage_it", [damage, lambda b: (b / "manifest.json").write_text("{}")])
def test_a_broken_new_version_is_not_listed_and_takes_no_calls(
    server: Running, root: Path, translation_bundle: Path, damage_it: Callable[[Path], None]
):
    damage_it(add_version(translation_bundle, root, "2"))
    assert failure_of(load, server, "tiny-en-de/2").code() == grpc.StatusCode.FAILED_PRECONDITION
    assert models(server) == {"tiny-bert/1": True, "tiny-en-de/1": True}
    assert translate(server).model == "tiny-en-de/1"
    assert 'version="2"' not in metrics_page(server.server)


@pytest.mark.parametrize(
    ("change", "model", "code", "message"),
    [
        (load, "", grpc.StatusCode.INVALID_ARGUMENT, "model: must name a model"),
        (unload, "", grpc.StatusCode.INVALID_ARGUMENT, "model: must name a model"),
        (load, "none", grpc.StatusCode.NOT_FOUND, "model: the folder has no such bundle"),
        (load, "../x", grpc.StatusCode.NOT_FOUND, "model: the folder has no such bundle"),
        (unload, "none", grpc.StatusCode.NOT_FOUND, "model: no such model is served"),
        (unload, "tiny-en-de/2", grpc.StatusCode.NOT_FOUND, "model: no such model is served"),
    ],
)
def test_a_model_that_is_not_there_is_named_as_the_fault(
    server: Running, change, model, code, message
):
    failure = failure_of(change, server, model)
    assert (failure.code(), failure.details()) == (code, message)


def test_a_name_whose_only_bundle_is_broken_is_not_called_missing(
    server: Running, root: Path, embedding_bundle: Path
):
    unload(server, "tiny-bert")
    (add_version(embedding_bundle, root, "1") / "manifest.json").write_text("{")
    failure = failure_of(load, server, "tiny-bert")
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "tiny-bert/1/manifest.json: " in failure.details()


def test_a_folder_without_bundles_is_a_fault_that_tells_no_path(server: Running, root: Path):
    for name in ("tiny-en-de", "tiny-bert"):
        (root / name).rename(root / f".{name}")
    failure = failure_of(load, server, "tiny-bert")
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failure.details() == "model: the folder has no bundles that can be read"


@pytest.mark.parametrize("damage_it", [damage, lambda b: (b / "manifest.json").write_text("{}")])
def test_a_fault_of_a_linked_folder_does_not_tell_where_it_is(
    server: Running,
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    translation_bundle: Path,
    damage_it: Callable[[Path], None],
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    damage_it(add_version(translation_bundle, elsewhere, "2"))
    (root / "tiny-en-de" / "2").symlink_to(elsewhere / "tiny-en-de" / "2")
    failure = failure_of(load, server, "tiny-en-de/2")
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failure.details().startswith("model: tiny-en-de/2/")
    assert "elsewhere" not in failure.details()


def test_a_lack_of_room_for_copies_does_not_tell_their_folder(
    server: Running, root: Path, translation_bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    add_version(translation_bundle, root, "2")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    failure = failure_of(load, server, "tiny-en-de/2")
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failure.details().startswith("model: tiny-en-de/2: the temporary folder has 1 free")


def test_a_load_that_is_given_up_leaves_nothing_behind(
    server: Running, root: Path, translation_bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    may_end = threading.Event()
    monkeypatch.setattr(ModelLoader, "load", lambda *_, **__: may_end.wait())
    add_version(translation_bundle, root, "2")
    call = control(server).LoadModel.future(LoadModelRequest(model="tiny-en-de/2"))
    wait_until(lambda: "tiny-en-de/2" in models(server))

    async def stop_changes() -> None:
        server.server.lifecycle.stop()

    server.loop.run(stop_changes())
    assert call.code() == grpc.StatusCode.UNAVAILABLE
    assert "tiny-en-de/2" not in models(server)
    assert failure_of(load, server, "tiny-en-de/2").code() == grpc.StatusCode.UNAVAILABLE
    may_end.set()


def test_one_of_several_versions_must_be_named_to_be_unloaded(
    server: Running, root: Path, translation_bundle: Path
):
    add_version(translation_bundle, root, "2")
    load(server, "tiny-en-de/2")
    failure = failure_of(unload, server, "tiny-en-de")
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details() == "model: must name one of tiny-en-de/1, tiny-en-de/2"
    assert unload(server, "tiny-en-de/1") == "tiny-en-de/1"
    assert translate(server).model == "tiny-en-de/2"


def test_many_loads_and_unloads_at_once_leave_one_model_and_lose_no_call(
    server: Running, root: Path, translation_bundle: Path
):
    add_version(translation_bundle, root, "2")
    stub = control(server)
    changes = [
        future
        for _ in range(8)
        for future in (
            stub.LoadModel.future(LoadModelRequest(model="tiny-en-de/2")),
            stub.UnloadModel.future(UnloadModelRequest(model="tiny-en-de/2")),
        )
    ]
    calls = 0
    while not all(change.done() for change in changes):
        assert translate(server, "tiny-en-de").translations
        calls += 1
    codes = {change.code() for change in changes}
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND}
    assert calls
    load(server, "tiny-en-de/2")
    wait_until(lambda: len(engine_models(server)) == 3)


def test_a_load_goes_on_when_its_caller_gives_up(
    server: Running, root: Path, translation_bundle: Path
):
    add_version(translation_bundle, root, "2")
    call = control(server).LoadModel.future(LoadModelRequest(model="tiny-en-de/2"))
    wait_until(lambda: "tiny-en-de/2" in models(server))
    call.cancel()
    wait_until(lambda: translate(server, "tiny-en-de").model == "tiny-en-de/2")


def test_the_service_is_off_unless_it_is_switched_on(start: Callable[..., Running]):
    server = start()
    assert failure_of(load, server, "tiny-bert").code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_service_is_for_this_machine_only_without_authentication(settings):
    with pytest.raises(SettingsError, match="model_control: needs api_keys, jwt_keys"):
        settings(model_control="on", host="0.0.0.0")
    assert isinstance(settings(model_control="on", host="localhost"), Settings)


def test_a_model_that_does_not_fit_the_memory_is_not_loaded(
    server: Running, root: Path, translation_bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    version = add_version(translation_bundle, root, "2")
    needed = needed_bytes(read_bundle(version, "fp32", "cpu"))
    begun, load_bundle = [], ModelLoader.load

    def noted(loader: ModelLoader, bundle: Bundle, while_serving: bool = False) -> LoadedModel:
        begun.append(bundle.key)
        return load_bundle(loader, bundle, while_serving)

    def let_be_free(num_bytes: int) -> None:
        memory = HostMemory(used=10**9, limit=10**9 + num_bytes)
        monkeypatch.setattr(memory_need, "host_memory", lambda: memory)

    monkeypatch.setattr(ModelLoader, "load", noted)
    let_be_free(needed - 1)
    failure = failure_of(load, server, "tiny-en-de/2")
    assert failure.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert re.search(r"needs about \d+ MB of memory, but \d+ MB of 100", failure.details())
    assert models(server) == {"tiny-bert/1": True, "tiny-en-de/1": True}
    assert not begun  # what does not fit may end the process while it is loaded
    let_be_free(needed)
    load(server, "tiny-en-de/2")
    assert begun == ["tiny-en-de/2"]
    assert models(server)["tiny-en-de/2"]


def test_a_load_from_a_folder_without_bundles_fails_with_the_reason(server: Running, root: Path):
    for name in ("tiny-bert", "tiny-en-de"):
        (root / name).rename(root / f".{name}")
    error = failure_of(lambda: load(server, "tiny-bert"))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "no bundles" in error.details()
