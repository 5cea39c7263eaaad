"""Models as KServe and Triton describe them."""

from collections.abc import Iterable, Sequence

from attendant_vendored.inference import grpc_service_pb2, model_config_pb2

from attendant_server.application.descriptions import ModelDescription
from attendant_server.application.model_statistics import ModelFigures
from attendant_server.application.models import ListedModel
from attendant_server.grpc.kserve.inference import main_task
from attendant_server.grpc.kserve.tasks import TensorSpec

PLATFORM = "attendant"
"""The platform and the backend of all models."""
TYPES = {
    "BYTES": model_config_pb2.TYPE_STRING,
    "FP32": model_config_pb2.TYPE_FP32,
    "INT32": model_config_pb2.TYPE_INT32,
}
Metadata = grpc_service_pb2.ModelMetadataResponse


def metadata(model: ModelDescription, versions: Sequence[str]) -> Metadata:
    """The inputs and outputs of a model; the first dimension is the number of texts."""
    task = main_task(model)
    return Metadata(
        name=model.name,
        versions=versions,
        platform=PLATFORM,
        inputs=_tensors(task.inputs()),
        outputs=_tensors(spec for spec in task.outputs(model) if not spec.is_optional),
    )


def _tensors(specs: Iterable[TensorSpec]) -> list[Metadata.TensorMetadata]:
    return [
        Metadata.TensorMetadata(
            name=spec.name, datatype=spec.datatype, shape=(-1, spec.num_columns)
        )
        for spec in specs
    ]


def config(model: ModelDescription, max_texts: int) -> model_config_pb2.ModelConfig:
    """The configuration of a model: dimensions are those of one text, as in Triton's batches."""
    task = main_task(model)
    return model_config_pb2.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend=PLATFORM,
        max_batch_size=max_texts,
        input=[
            model_config_pb2.ModelInput(
                name=spec.name,
                data_type=TYPES[spec.datatype],
                dims=[spec.num_columns],
                optional=spec.is_optional,
            )
            for spec in task.inputs()
        ],
        output=[
            model_config_pb2.ModelOutput(
                name=spec.name, data_type=TYPES[spec.datatype], dims=[spec.num_columns]
            )
            for spec in task.outputs(model)
            if not spec.is_optional
        ],
        dynamic_batching=model_config_pb2.ModelDynamicBatching(),
    )


def index(
    models: Iterable[ListedModel], only_ready: bool
) -> grpc_service_pb2.RepositoryIndexResponse:
    """The names, versions and states of models."""
    response = grpc_service_pb2.RepositoryIndexResponse()
    for model in models:
        if model.is_ready or not only_ready:
            response.models.add(
                name=model.description.name,
                version=model.description.version,
                state="READY" if model.is_ready else "LOADING",
            )
    return response


def statistics(model: ModelDescription, figures: ModelFigures) -> grpc_service_pb2.ModelStatistics:
    """What a model has done since it was loaded first."""
    response = grpc_service_pb2.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=figures.last_call_milliseconds,
        inference_count=figures.num_texts,
        execution_count=figures.num_batches,
    )
    for name, (count, nanoseconds) in figures.durations.items():
        duration = getattr(response.inference_stats, name)
        duration.count, duration.ns = count, nanoseconds
    return response
