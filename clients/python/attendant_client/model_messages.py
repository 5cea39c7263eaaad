"""Builds the requests about models and health, beside `messages`."""

from attendant.v1 import model_control_pb2, model_pb2
from grpc_health.v1 import health_pb2

from attendant_client import model_parsing as parsing
from attendant_client import model_results as results
from attendant_client.calls import Call


def list_models() -> Call[list[results.ModelInfo]]:
    """Build a ListModels call."""
    return Call(
        "/attendant.v1.ModelService/ListModels",
        model_pb2.ListModelsRequest(),
        model_pb2.ListModelsResponse,
        lambda response, _: parsing.model_infos(response),
    )


def get_model(name: str) -> Call[results.Model]:
    """Build a GetModel call."""
    return Call(
        "/attendant.v1.ModelService/GetModel",
        model_pb2.GetModelRequest(model=name),
        model_pb2.GetModelResponse,
        lambda response, _: parsing.model(response),
    )


def load_model(name: str) -> Call[results.ModelInfo]:
    """Build a LoadModel call."""
    return Call(
        "/attendant.v1.ModelControlService/LoadModel",
        model_control_pb2.LoadModelRequest(model=name),
        model_control_pb2.LoadModelResponse,
        lambda response, _: parsing.model_info(response.model),
    )


def unload_model(name: str) -> Call[str]:
    """Build an UnloadModel call."""
    return Call(
        "/attendant.v1.ModelControlService/UnloadModel",
        model_control_pb2.UnloadModelRequest(model=name),
        model_control_pb2.UnloadModelResponse,
        lambda response, _: str(response.model),
        is_idempotent=False,
    )


def health(service: str) -> Call[str]:
    """Build a Check call of the standard health service."""
    return Call(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest(service=service),
        health_pb2.HealthCheckResponse,
        lambda response, _: parsing.health(response),
    )
