from typing import Any

import grpc
import pytest
from attendant.v1 import model_pb2, translation_pb2
from attendant_server.app import Server
from google.protobuf.descriptor_database import DescriptorDatabase
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2

from tests.support.serving import Running, failure_of, wait_until

SERVICES = ["TranslationService", "EmbeddingService", "LanguageService", "ModelService"]


def status(running: Running, service: str = "") -> int:
    return int(running.health.Check(HealthCheckRequest(service=service)).status)


@pytest.mark.parametrize("service", ["", *(f"attendant.v1.{name}" for name in SERVICES)])
def test_a_loaded_server_serves_each_of_its_services(running: Running, service: str):
    assert status(running, service) == HealthCheckResponse.SERVING


def test_an_unknown_service_is_not_found(running: Running):
    failure = failure_of(status, running, "attendant.v1.Nothing")
    assert failure.code() == grpc.StatusCode.NOT_FOUND


def test_a_service_without_a_model_does_not_serve(start):
    running = start(models=("tiny-bert",))
    assert status(running) == HealthCheckResponse.SERVING
    for service in ("TranslationService", "LanguageModelService"):
        assert status(running, f"attendant.v1.{service}") == HealthCheckResponse.NOT_SERVING


def test_a_server_that_is_loading_says_so_and_refuses_calls(loop, settings):
    server = Server(settings())
    loop.run(server.start())
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            running = Running(server, loop, channel)
            assert status(running) == HealthCheckResponse.NOT_SERVING
            models = running.models.ListModels(model_pb2.ListModelsRequest()).models
            assert [m.state for m in models] == [model_pb2.MODEL_STATE_LOADING] * 2
            request = translation_pb2.TranslateRequest(texts=["The dog."])
            failure = failure_of(running.translation.Translate, request)
            assert failure.code() == grpc.StatusCode.UNAVAILABLE
            assert failure.details() == "tiny-en-de/1 is loading"
            refused = running.metric("attendant_refused_calls_total", reason="unavailable")
            assert refused == 1
            loop.run(server.load())
            assert status(running) == HealthCheckResponse.SERVING
            assert running.translation.Translate(request).translations[0].hypotheses
    finally:
        loop.run(server.stop())


def test_every_watcher_learns_that_the_server_stops(loop, settings):
    server = Server(settings())
    loop.run(server.__aenter__())
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        running = Running(server, loop, channel)
        gone, first, second = (running.health.Watch(HealthCheckRequest()) for _ in range(3))
        for observer in (gone, first, second):
            assert next(observer).status == HealthCheckResponse.SERVING
        gone.cancel()
        loop.run(server.stop())
        for observer in (first, second):
            assert [r.status for r in observer] == [HealthCheckResponse.NOT_SERVING]


def test_a_dead_engine_is_reported_and_every_caller_answered(start):
    running = start()

    def die(_: tuple[int, ...]) -> None:
        raise SystemExit

    call = running.submit(die)
    with pytest.raises(Exception, match="died"):
        call.future.result(60)
    wait_until(lambda: status(running) == HealthCheckResponse.NOT_SERVING)
    request = translation_pb2.TranslateRequest(texts=["The dog."])
    failure = failure_of(running.translation.Translate, request)
    assert failure.code() == grpc.StatusCode.UNAVAILABLE


def reflect(running: Running, version: str, **requests: Any) -> list[Any]:
    """Raw answers of one version of reflection. Both versions have the same messages."""
    call = running.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    messages = [reflection_pb2.ServerReflectionRequest(**{k: v}) for k, v in requests.items()]
    return list(call(iter(messages), timeout=60))


REFLECTION_VERSIONS = ["v1", "v1alpha"]
ALL_SERVICES = [
    *(f"attendant.v1.{name}" for name in (*SERVICES, "LanguageModelService")),
    "inference.GRPCInferenceService",
    *(f"tei.v1.{name}" for name in ("Embed", "Info", "Predict", "Rerank", "Tokenize")),
    "grpc.health.v1.Health",
    *(f"grpc.reflection.{version}.ServerReflection" for version in REFLECTION_VERSIONS),
]


@pytest.mark.parametrize("version", REFLECTION_VERSIONS)
def test_every_service_is_found_through_reflection(running: Running, version: str):
    [response] = reflect(running, version, list_services="")
    names = [service.name for service in response.list_services_response.service]
    assert names == sorted(ALL_SERVICES)


@pytest.mark.parametrize("service", ALL_SERVICES)
@pytest.mark.parametrize("version", REFLECTION_VERSIONS)
def test_reflection_describes_a_service_with_all_files_that_it_needs(
    running: Running, version: str, service: str
):
    [response] = reflect(running, version, file_containing_symbol=service)
    database = DescriptorDatabase()
    for content in response.file_descriptor_response.file_descriptor_proto:
        database.Add(FileDescriptorProto.FromString(content))
    package = service.rpartition(".")[0]
    methods = DescriptorPool(database).FindServiceByName(service).methods
    messages = [message for m in methods for message in (m.input_type, m.output_type)]
    assert messages
    assert all(message.full_name.startswith(f"{package}.") for message in messages)


@pytest.mark.parametrize("version", REFLECTION_VERSIONS)
def test_reflection_does_not_find_what_the_server_does_not_serve(running: Running, version: str):
    requests = {"file_containing_symbol": "attendant.v1.Nothing", "file_by_filename": "no.proto"}
    for response in reflect(running, version, **requests):
        assert response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
