"""Credentials and permissions of calls in other protocols: those of the methods they stand for."""

from typing import Any

import grpc
import pytest
from attendant_server.foreign_methods import OPERATIONS
from attendant_server.grpc.protocols import PROTOCOLS
from attendant_server.grpc.server import own_method_names
from attendant_server.records import Method
from attendant_server.security.api_keys import new_api_key
from attendant_vendored.inference import grpc_service_pb2 as inference
from attendant_vendored.inference import grpc_service_pb2_grpc
from attendant_vendored.tei import tei_pb2

from tests.support.kserve import infer_request
from tests.support.serving import failure_of
from tests.support.tei import TeiStubs

TEXT = "The dog sees the king."
PERMISSIONS = {
    "embedder": 'methods = ["Embed"]\n',
    "translator": 'methods = ["Translate"]\n',
    "reader": 'methods = ["GetModel", "ListModels", "Tokenize"]\n',
    "one-model": 'models = ["tiny-bert"]\n',
    "operator": 'methods = ["LoadModel", "UnloadModel"]\n',
    "any": "",
}


@pytest.fixture(scope="module")
def served(loop, settings, tmp_path_factory):
    from tests.support.serving import running_server

    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    made = {name: new_api_key(name) for name in PERMISSIONS}
    path.write_text("\n".join(made[name][1] + more for name, more in PERMISSIONS.items()))
    path.chmod(0o600)
    with running_server(loop, settings(api_keys=str(path), model_control="on")) as running:
        yield running, {name: key for name, (key, _) in made.items()}


@pytest.fixture(scope="module")
def server(served):
    """A server with keys, and control of models."""
    return served[0]


@pytest.fixture(scope="module")
def keys(served):
    """The keys of the callers, by their names."""
    return served[1]


@pytest.fixture(scope="module")
def call(server, keys):
    """Calls a method of a stub as a caller; returns the name of the status."""
    stubs = TeiStubs(server.channel)
    stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(server.channel)

    def call(caller: str, method: str, request: Any) -> str:
        metadata = [("authorization", f"Bearer {keys[caller]}")] if caller else []
        service, _, name = method.rpartition(".")
        function = getattr(getattr(stubs, service) if service else stub, name)
        try:
            function(request, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    return call


TRANSLATION = infer_request("tiny-en-de", {"TEXT": [TEXT]})
EMBEDDING = infer_request("tiny-bert", {"TEXT": [TEXT]})
LABELS = infer_request("tiny-classifier", {"TEXT": [TEXT]})
METADATA = inference.ModelMetadataRequest(name="tiny-bert")
INDEX = inference.RepositoryIndexRequest()
UNLOAD = inference.RepositoryModelUnloadRequest(model_name="none")
EMBED = tei_pb2.EmbedRequest(inputs=TEXT)
DENIED, UNKNOWN = "PERMISSION_DENIED", "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("caller", "method", "request_", "status"),
    [
        ("", "ServerLive", inference.ServerLiveRequest(), UNKNOWN),
        ("", "ModelInfer", EMBEDDING, UNKNOWN),
        ("", "ModelMetadata", METADATA, UNKNOWN),
        ("", "embed.Embed", EMBED, UNKNOWN),
        ("", "info.Info", tei_pb2.InfoRequest(), UNKNOWN),
        ("any", "ModelInfer", TRANSLATION, "OK"),
        ("any", "ModelInfer", LABELS, "OK"),
        ("any", "embed.Embed", EMBED, "OK"),
        ("any", "RepositoryModelUnload", UNLOAD, DENIED),
        ("operator", "RepositoryModelUnload", UNLOAD, "NOT_FOUND"),
        ("operator", "ServerReady", inference.ServerReadyRequest(), "OK"),
        ("operator", "ModelInfer", EMBEDDING, DENIED),
        ("embedder", "ModelInfer", EMBEDDING, "OK"),
        ("embedder", "ModelInfer", TRANSLATION, DENIED),
        ("embedder", "ModelInfer", LABELS, DENIED),
        ("embedder", "embed.Embed", EMBED, "OK"),
        ("embedder", "embed.EmbedAll", tei_pb2.EmbedAllRequest(inputs=TEXT), DENIED),
        ("embedder", "predict.Predict", tei_pb2.PredictRequest(inputs=TEXT), DENIED),
        ("embedder", "tokenize.Tokenize", tei_pb2.EncodeRequest(inputs=TEXT), DENIED),
        ("embedder", "ModelMetadata", METADATA, DENIED),
        ("embedder", "RepositoryIndex", INDEX, DENIED),
        ("translator", "ModelInfer", TRANSLATION, "OK"),
        ("translator", "embed.Embed", EMBED, DENIED),
        ("reader", "ModelMetadata", METADATA, "OK"),
        ("reader", "RepositoryIndex", INDEX, "OK"),
        ("reader", "info.Info", tei_pb2.InfoRequest(), "OK"),
        ("reader", "tokenize.Tokenize", tei_pb2.EncodeRequest(inputs=TEXT), "OK"),
        ("reader", "ModelInfer", EMBEDDING, DENIED),
        ("one-model", "ModelInfer", EMBEDDING, "OK"),
        ("one-model", "ModelInfer", TRANSLATION, DENIED),
        ("one-model", "ModelMetadata", inference.ModelMetadataRequest(name="tiny-lm"), DENIED),
    ],
)
def test_a_call_needs_the_permission_of_the_method_that_does_its_work(
    call, caller, method, request_, status
):
    assert call(caller, method, request_) == status


def with_key(keys, name):
    return {"metadata": [("authorization", f"Bearer {keys[name]}")]}


def test_each_request_of_a_stream_needs_its_permission(server, keys):
    stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(server.channel)
    streamed = infer_request("tiny-en-de", {"TEXT": [TEXT]}, stream=True)
    requests = [TRANSLATION, EMBEDDING, streamed]
    answers = list(stub.ModelStreamInfer(iter(requests), **with_key(keys, "translator")))
    errors = [answer.error_message for answer in answers]
    assert errors == [
        "",
        *(f"method: this caller may not call {name}" for name in ("Embed", "StreamTranslate")),
    ]
    stream = TeiStubs(server.channel).embed.EmbedStream(iter([EMBED]), **with_key(keys, "reader"))
    assert failure_of(list, stream).code() is grpc.StatusCode.PERMISSION_DENIED


def test_lists_and_readiness_show_permitted_models_only(server, keys):
    stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(server.channel)
    key = with_key(keys, "one-model")
    index = stub.RepositoryIndex(INDEX, **key).models
    assert [model.name for model in index] == ["tiny-bert"]
    statistics = stub.ModelStatistics(inference.ModelStatisticsRequest(), **key).model_stats
    assert [model.name for model in statistics] == ["tiny-bert"]
    assert stub.ModelReady(inference.ModelReadyRequest(name="tiny-bert"), **key).ready
    assert not stub.ModelReady(inference.ModelReadyRequest(name="tiny-lm"), **key).ready


def test_every_foreign_method_has_an_operation_of_the_own_contract():
    methods = {
        service.full_name: {method.name for method in service.methods}
        for name in ("kserve", "tei")
        for file in PROTOCOLS[name].files
        for service in file.services_by_name.values()
    }
    of_grpc = {name: set(found) for name, found in OPERATIONS.items() if "http." not in name}
    assert of_grpc == methods
    operations = {operation for found in OPERATIONS.values() for operation in found.values()}
    assert operations - {""} <= own_method_names()
    with pytest.raises(KeyError):  # a method that a later version adds is not open to all
        assert Method("tei.v1.Embed", "EmbedLater", "unary").operation
