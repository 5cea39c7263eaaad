"""Permissions by model: named, chosen by default or by language, and in the lists of models."""

from pathlib import Path

import grpc
import pytest
from attendant.v1 import model_control_pb2_grpc
from attendant.v1.model_control_pb2 import LoadModelRequest, UnloadModelRequest
from attendant_client import InvalidRequestError, NotFoundError, PermissionDeniedError

from tests.support.altered import with_manifest
from tests.support.application import TINY_BUNDLES

MESSAGES = {"LoadModel": LoadModelRequest, "UnloadModel": UnloadModelRequest}


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """The bundle of translation under two names and in two versions, and the one of embedding."""
    root = tmp_path / "bundles"
    source = TINY_BUNDLES / "tiny-en-de" / "1"
    (root / "tiny-en-de").mkdir(parents=True)
    for version in ("1", "2"):
        folder = root / "tiny-en-de" / version
        folder.mkdir()
        for file in source.iterdir():
            content = file.read_bytes()
            if file.name == "manifest.json":
                content = content.replace(b'"version": "1"', b'"version": "%s"' % version.encode())
            (folder / file.name).write_bytes(content)
    (root / "tiny-bert").symlink_to(TINY_BUNDLES / "tiny-bert")
    return root


@pytest.fixture
def client(start, client_of, key_file, bundles):
    """Makes a client whose key permits some models."""

    def client(*models: str):
        key = key_file.add("limited", f"models = {list(models)}\n")
        return client_of(start(bundles=bundles, api_keys=str(key_file.path)), token=key)

    return client


def test_lists_and_descriptions_show_permitted_models_only(client):
    limited = client("tiny-en-de/1")
    [model] = limited.models()
    assert (model.name, model.version, model.is_default) == ("tiny-en-de", "1", True)
    assert limited.model("tiny-en-de").info.version == "1"
    assert limited.model().info.version == "1"
    for name in ("tiny-en-de/2", "tiny-bert", "no-such-model"):
        with pytest.raises(PermissionDeniedError) as failure:
            limited.model(name)
        assert str(failure.value) == "model: this caller may use only these models: tiny-en-de/1"


def test_a_name_stands_for_the_highest_permitted_version(client):
    assert (
        client("tiny-en-de/1").translate("The dog.", model="tiny-en-de").call.model
        == "tiny-en-de/1"
    )


def test_the_default_model_is_one_that_the_caller_may_use(client):
    limited = client("tiny-en-de/1")
    assert limited.translate("The dog.").call.model == "tiny-en-de/1"
    with pytest.raises(NotFoundError, match=r"no embedding model; there are none"):
        limited.embed("The dog.")


def test_languages_choose_among_permitted_models(client):
    limited = client("tiny-bert")
    with pytest.raises(NotFoundError, match=r"target_language de; there are none"):
        limited.translate("The dog.", target_language="de")


def test_a_pivot_language_needs_permission_for_both_models(start, client_of, key_file, tmp_path):
    source = TINY_BUNDLES / "tiny-en-de" / "1"

    def rename(manifest):
        manifest |= {"name": "tiny-de-nl", "source_language": "de", "target_language": "nl"}

    with_manifest(source, tmp_path, rename)
    (tmp_path / "tiny-en-de").rename(tmp_path / "tiny-de-nl")
    (tmp_path / "tiny-en-de").symlink_to(source.parent)
    one, both = (
        key_file.add(name, f"models = {models}\n")
        for name, models in {"one": ["tiny-de-nl"], "both": ["tiny-de-nl", "tiny-en-de/1"]}.items()
    )
    server = start(bundles=tmp_path, api_keys=str(key_file.path), pivots=("tiny-en-de+tiny-de-nl",))
    languages = {"source_language": "en", "target_language": "nl"}
    found = client_of(server, token=both).translate("The dog.", **languages)
    assert found.call.model == "tiny-en-de/1+tiny-de-nl/1"
    with pytest.raises(NotFoundError, match=r"target_language nl; there are tiny-de-nl/1\n"):
        client_of(server, token=one).translate("The dog.", **languages)


def test_every_method_checks_the_named_model(client):
    limited = client("tiny-bert")
    none, embedding = "translation models: none", "embedding models: tiny-bert/1"
    calls = [
        (lambda: limited.translate("The dog.", model="tiny-en-de"), none),
        (lambda: list(limited.stream_translate("The dog.", model="tiny-en-de")), none),
        (lambda: limited.score([("The dog.", "Der Hund.")], model="tiny-en-de"), none),
        (lambda: limited.tokenize("The dog.", model="tiny-en-de/2"), "models: tiny-bert/1"),
        (lambda: limited.embed("The dog.", model="tiny-en-de"), embedding),
    ]
    for call, allowed in calls:
        with pytest.raises(PermissionDeniedError, match=f"may use only these {allowed}\n"):
            call()
    assert limited.embed("The dog.").vector.shape
    with pytest.raises(InvalidRequestError):
        limited.translate("The dog.", model="tiny-bert")


def test_a_key_with_a_name_may_use_all_its_versions(client):
    assert [model.version for model in client("tiny-en-de").models()] == ["1", "2"]


def test_a_key_without_models_may_use_none(client):
    limited = client()
    assert limited.models() == []
    with pytest.raises(
        PermissionDeniedError, match="this caller may use only these translation models: none"
    ):
        limited.translate("The dog.", model="tiny-en-de")


def test_models_are_changed_by_callers_only_whose_permissions_name_the_method(
    start, key_file, bundles
):
    allowed = key_file.add("operator", 'methods = ["UnloadModel"]\n')
    limited = key_file.add("limited", 'methods = ["UnloadModel"]\nmodels = ["tiny-en-de/1"]\n')
    unlimited = key_file.add("search")
    server = start(bundles=bundles, api_keys=str(key_file.path), model_control="on")

    def code(method, key, model):
        metadata = [("authorization", f"Bearer {key}")] if key else None
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = model_control_pb2_grpc.ModelControlServiceStub(channel)
            request = MESSAGES[method](model=model)
            return getattr(stub, method).future(request, metadata=metadata).code()

    denied = grpc.StatusCode.PERMISSION_DENIED
    assert code("UnloadModel", "", "tiny-bert") == grpc.StatusCode.UNAUTHENTICATED
    for method in MESSAGES:
        assert code(method, unlimited, "tiny-bert") == denied
    assert code("LoadModel", allowed, "tiny-bert") == denied
    for model in ("tiny-bert", "tiny-en-de/2", "tiny-en-de", "no-such-model"):
        assert code("UnloadModel", limited, model) == denied
    assert code("UnloadModel", limited, "tiny-en-de/1") == grpc.StatusCode.OK
    assert code("UnloadModel", allowed, "tiny-bert") == grpc.StatusCode.OK
