"""Protocols can be switched off, one by one; health checks and reflection follow."""

import grpc
import pytest
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_server.settings import Settings, SettingsError
from attendant_vendored.inference import grpc_service_pb2_grpc
from attendant_vendored.tei import tei_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.support.kserve import infer_request
from tests.support.serving import failure_of
from tests.support.tei import TeiStubs

TEXT = "The dog sees the king."
CALLS = {
    "attendant": lambda server: server.translation.Translate(
        TranslateRequest(model="tiny-en-de", texts=[TEXT])
    ),
    "kserve": lambda server: grpc_service_pb2_grpc.GRPCInferenceServiceStub(
        server.channel
    ).ModelInfer(infer_request("tiny-en-de", {"TEXT": [TEXT]})),
    "tei": lambda server: TeiStubs(server.channel).embed.Embed(tei_pb2.EmbedRequest(inputs=TEXT)),
}
SERVICES = {
    "attendant": "attendant.v1.TranslationService",
    "kserve": "inference.GRPCInferenceService",
    "tei": "tei.v1.Embed",
}


@pytest.mark.parametrize("served", [("attendant",), ("kserve",), ("tei", "kserve")])
def test_a_server_speaks_the_protocols_of_its_setting_only(start, served):
    server = start(protocols=served)
    reflected = ProtoReflectionDescriptorDatabase(server.channel).get_services()
    assert server.health.Check(HealthCheckRequest()).status == HealthCheckResponse.SERVING
    for name, call in CALLS.items():
        check = HealthCheckRequest(service=SERVICES[name])
        assert (SERVICES[name] in reflected) is (name in served)
        if name in served:
            assert call(server)
            assert server.health.Check(check).status == HealthCheckResponse.SERVING
        else:
            assert failure_of(call, server).code() is grpc.StatusCode.UNIMPLEMENTED
            assert failure_of(server.health.Check, check).code() is grpc.StatusCode.NOT_FOUND
    assert server.metric("attendant_model_serving", model="tiny-bert/1") == 1


@pytest.mark.parametrize("protocols", [(), ("rest",), ("kserve", "v2")])
def test_unknown_protocols_are_refused_at_the_start(protocols):
    with pytest.raises(SettingsError, match="protocols: must be among attendant, kserve, tei"):
        Settings(protocols=protocols)


def test_the_services_of_embeddings_do_not_serve_without_an_embedding_model(start, bundles):
    server = start(models=("tiny-lm",), default_models=())
    checks = [HealthCheckRequest(service=SERVICES[name]) for name in ("kserve", "tei")]
    statuses = [server.health.Check(check).status for check in checks]
    assert statuses == [HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING]
