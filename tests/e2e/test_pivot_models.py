"""The models of a route over a pivot language: loading, unloaded and busy ones."""

import logging
import threading
from typing import Any

import grpc
import pytest
from attendant.v1 import model_control_pb2_grpc
from attendant.v1.model_control_pb2 import UnloadModelRequest
from attendant.v1.model_pb2 import ListModelsRequest
from attendant.v1.translation_pb2 import StreamTranslateRequest, TranslateRequest
from attendant_server.app import Server

from tests.support.altered import with_manifest
from tests.support.serving import Running, failure_of, wait_until

FIRST, SECOND = "tiny-en-de", "tiny-de-nl"
PIVOT = f"{FIRST}+{SECOND}/1"
KEY = f"{FIRST}/1+{SECOND}/1"
LANGUAGES: dict[str, Any] = {"source_language": "en", "target_language": "nl"}
REQUEST = TranslateRequest(texts=["The dog sees the king."], **LANGUAGES)


@pytest.fixture(scope="module")
def root(translation_bundle, tmp_path_factory):
    """The tiny model under two names; the second one says that it reads German."""
    folder = tmp_path_factory.mktemp("pivots")

    def rename(manifest: dict[str, Any]) -> None:
        manifest["name"] = SECOND
        manifest["source_languages"] = [{"tag": "de-DE"}]
        manifest["target_languages"] = [{"tag": "nl"}]

    with_manifest(translation_bundle, folder, rename)
    (folder / FIRST).rename(folder / SECOND)
    (folder / FIRST).symlink_to(translation_bundle.parent)
    return folder


@pytest.fixture
def server(start, root) -> Running:
    running: Running = start(bundles=root, pivots=(PIVOT,), model_control="on")
    return running


def names(server: Running) -> list[str]:
    return [model.name for model in server.models.ListModels(ListModelsRequest()).models]


def test_languages_with_and_without_a_region_are_a_route(server: Running):
    assert server.translation.Translate(REQUEST).model == KEY


def test_a_call_that_has_begun_ends_with_both_models_though_one_is_unloaded(server: Running):
    expected = server.translation.Translate(REQUEST).translations
    control: Any = model_control_pb2_grpc.ModelControlServiceStub(server.channel)
    unloading = threading.Thread(
        target=control.UnloadModel, args=(UnloadModelRequest(model=SECOND),)
    )
    with server.held_engine():
        call = server.translation.Translate.future(REQUEST)
        stream = server.translation.StreamTranslate(
            StreamTranslateRequest(text=REQUEST.texts[0], **LANGUAGES)
        )
        server.wait_for_queued(2)
        unloading.start()
        wait_until(lambda: names(server) == [FIRST])
    assert call.result().translations == expected
    *_, last = stream
    assert last.translation == expected[0]
    unloading.join()
    failure = failure_of(server.translation.Translate, REQUEST)
    assert failure.code() == grpc.StatusCode.NOT_FOUND
    assert "source_language en, target_language nl; there are tiny-en-de/1" in failure.details()


def test_a_call_whose_deadline_passes_in_the_first_model_never_reaches_the_second(server: Running):
    with server.held_engine():
        failure = failure_of(server.translation.Translate, REQUEST, timeout=0.2)
        assert failure.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert server.translation.Translate(REQUEST).translations[0].hypotheses
    name = "attendant_encode_batch_texts_sum"
    assert server.metric(name, model=f"{SECOND}/1") == len(REQUEST.texts)


def test_a_route_whose_models_are_loading_is_unavailable(loop, settings, root):
    server = Server(settings(bundles=root, pivots=(PIVOT,)))
    loop.run(server.start())
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            loading = Running(server, loop, channel)
            failure = failure_of(loading.translation.Translate, REQUEST)
    finally:
        loop.run(server.stop())
    assert failure.code() == grpc.StatusCode.UNAVAILABLE
    assert failure.details() == f"{FIRST}/1 is loading"


def test_the_log_names_both_models_and_counts_texts_once(server: Running, caplog):
    caplog.set_level(logging.INFO, "attendant_server.calls")
    request = TranslateRequest(texts=[*REQUEST.texts, ""], **LANGUAGES)
    found = server.translation.Translate(request)
    wait_until(lambda: f" model={KEY} " in caplog.text)
    counts = found.token_counts
    expected = f"texts=2 input_tokens={counts.num_input_tokens} output_tokens="
    assert expected + str(counts.num_output_tokens) in caplog.text
    invalid = [
        server.metric("attendant_invalid_texts_total", model=model)
        for model in (f"{FIRST}/1", f"{SECOND}/1")
    ]
    assert invalid == [1, 1]
