"""The protocols that the port of gRPC can speak: their services, and when these serve."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grpc
from attendant.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    language_model_pb2,
    language_model_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    model_control_pb2,
    model_control_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    translation_pb2,
    translation_pb2_grpc,
)
from attendant_vendored.inference import grpc_service_pb2, grpc_service_pb2_grpc
from attendant_vendored.tei import tei_pb2, tei_pb2_grpc

from attendant_server.application.application import Application
from attendant_server.application.descriptions import ModelKind
from attendant_server.foreign_methods import KSERVE
from attendant_server.grpc.kserve.service import InferenceService
from attendant_server.grpc.services.embedding import EmbeddingService
from attendant_server.grpc.services.health import HealthService
from attendant_server.grpc.services.language import LanguageService
from attendant_server.grpc.services.language_model import LanguageModelService
from attendant_server.grpc.services.model import ModelService
from attendant_server.grpc.services.model_control import ModelControlService
from attendant_server.grpc.services.translation import TranslationService
from attendant_server.grpc.tei.embed import EmbedService
from attendant_server.grpc.tei.predict import PredictService, RerankService
from attendant_server.grpc.tei.tokens import InfoService, TokenizeService
from attendant_server.settings import Settings

WHOLE_SERVER = ""
"""The name of the whole server in health checks."""
LANGUAGE_SERVICE = "attendant.v1.LanguageService"


class Protocol(NamedTuple):
    """One protocol."""

    files: Sequence[Any]
    """Descriptors of the files with its services."""
    services_of_kinds: Mapping[ModelKind, Sequence[str]]
    """Services that serve while a model of a kind is ready."""
    general_services: Sequence[str]
    """Services that serve while any model is ready."""


PROTOCOLS = {
    "attendant": Protocol(
        (
            translation_pb2.DESCRIPTOR,
            embedding_pb2.DESCRIPTOR,
            language_pb2.DESCRIPTOR,
            language_model_pb2.DESCRIPTOR,
            model_pb2.DESCRIPTOR,
            model_control_pb2.DESCRIPTOR,
        ),
        {
            ModelKind.TRANSLATION: ("attendant.v1.TranslationService",),
            ModelKind.EMBEDDING: ("attendant.v1.EmbeddingService",),
            ModelKind.LANGUAGE_MODEL: ("attendant.v1.LanguageModelService",),
        },
        ("attendant.v1.ModelService",),
    ),
    "kserve": Protocol((grpc_service_pb2.DESCRIPTOR,), {}, (KSERVE,)),
    "tei": Protocol(
        (tei_pb2.DESCRIPTOR,),
        {ModelKind.EMBEDDING: [s.full_name for s in tei_pb2.DESCRIPTOR.services_by_name.values()]},
        (),
    ),
}
"""The protocols by their names in the setting."""


def health_names(protocols: Collection[str]) -> Iterator[str]:
    """The services that health checks may name."""
    yield WHOLE_SERVER
    for name in protocols:
        protocol = PROTOCOLS[name]
        yield from protocol.general_services
        for services in protocol.services_of_kinds.values():
            yield from services
    if "attendant" in protocols:
        yield LANGUAGE_SERVICE


def serving_names(
    protocols: Collection[str], kinds: Collection[ModelKind], can_detect: bool
) -> Iterator[str]:
    """The services that serve while models of these kinds are ready.

    ``can_detect``: whether the detection of languages is installed.
    """
    if not kinds:
        return
    yield WHOLE_SERVER
    for name in protocols:
        protocol = PROTOCOLS[name]
        yield from protocol.general_services
        for kind in kinds:
            yield from protocol.services_of_kinds.get(kind, ())
    if "attendant" in protocols and can_detect:
        yield LANGUAGE_SERVICE


def add_services(
    server: grpc.aio.Server, application: Application, health: HealthService, settings: Settings
) -> None:
    """Add the services of the protocols that the settings name."""
    if "attendant" in settings.protocols:
        add_own_services(server, application, settings)
    if "kserve" in settings.protocols:
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceService(
                application,
                is_serving=lambda: health.is_serving(WHOLE_SERVER),
                can_change=settings.model_control == "on",
            ),
            server,
        )
    if "tei" in settings.protocols:
        tei_pb2_grpc.add_EmbedServicer_to_server(EmbedService(application), server)
        tei_pb2_grpc.add_PredictServicer_to_server(PredictService(application), server)
        tei_pb2_grpc.add_RerankServicer_to_server(RerankService(application), server)
        tei_pb2_grpc.add_TokenizeServicer_to_server(TokenizeService(application), server)
        tei_pb2_grpc.add_InfoServicer_to_server(InfoService(application, settings), server)


def add_own_services(server: grpc.aio.Server, application: Application, settings: Settings) -> None:
    """Add the services of attendant.v1 that the settings switch on."""
    translation_pb2_grpc.add_TranslationServiceServicer_to_server(
        TranslationService(application), server
    )
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingService(application), server)
    language_pb2_grpc.add_LanguageServiceServicer_to_server(LanguageService(application), server)
    language_model_pb2_grpc.add_LanguageModelServiceServicer_to_server(
        LanguageModelService(application), server
    )
    model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(application), server)
    if settings.model_control == "on":
        model_control_pb2_grpc.add_ModelControlServiceServicer_to_server(
            ModelControlService(application), server
        )
