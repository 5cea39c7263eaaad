"""GRPCInferenceService: the service of KServe's protocol version 2, with Triton's extensions."""

from collections.abc import AsyncIterator, Callable

from attendant_vendored.inference import grpc_service_pb2 as messages
from attendant_vendored.inference import grpc_service_pb2_grpc

from attendant_server import __version__
from attendant_server.application.application import Application
from attendant_server.errors import InvalidRequest, ModelNotFound, PermissionDenied, Unsupported
from attendant_server.grpc.context import Context
from attendant_server.grpc.kserve import descriptions
from attendant_server.grpc.kserve.inference import InferenceRunner, model_key
from attendant_server.grpc.kserve.streams import InferenceStream

SERVER_NAME = "attendant"
EXTENSIONS = ("model_configuration", "model_repository", "parameters", "statistics")
"""Triton's names of its extensions of the protocol."""
UNLOAD_DEPENDENTS = "unload_dependents"
"""A parameter that Triton's clients always send. No model here depends on another one."""


class InferenceService(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers for all models."""

    def __init__(
        self, application: Application, is_serving: Callable[[], bool], can_change: bool
    ) -> None:
        """``is_serving``: whether health checks report SERVING for the whole server.

        ``can_change``: whether callers with the permission may load and unload models.
        """
        self._application, self._models = application, application.models
        self._is_serving, self._can_change = is_serving, can_change
        self._runner = InferenceRunner(application)

    async def ServerLive(
        self, request: messages.ServerLiveRequest, context: Context
    ) -> messages.ServerLiveResponse:
        """True: the server answers."""
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: messages.ServerReadyRequest, context: Context
    ) -> messages.ServerReadyResponse:
        """Whether health checks report SERVING."""
        return messages.ServerReadyResponse(ready=self._is_serving())

    async def ModelReady(
        self, request: messages.ModelReadyRequest, context: Context
    ) -> messages.ModelReadyResponse:
        """Whether the model can be called; false for an unknown one, as in Triton."""
        try:
            model = self._models.get(model_key(request.name, request.version))
        except (ModelNotFound, PermissionDenied):
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=model.is_ready and self._is_serving())

    async def ServerMetadata(
        self, request: messages.ServerMetadataRequest, context: Context
    ) -> messages.ServerMetadataResponse:
        """The name and version of the server."""
        return messages.ServerMetadataResponse(
            name=SERVER_NAME, version=__version__, extensions=EXTENSIONS
        )

    async def ModelMetadata(
        self, request: messages.ModelMetadataRequest, context: Context
    ) -> messages.ModelMetadataResponse:
        """The versions, inputs and outputs of a model."""
        model = self._models.find(model_key(request.name, request.version))
        versions = [
            each.description.version
            for each in self._models.list()
            if each.description.name == model.name
        ]
        return descriptions.metadata(model, versions)

    async def ModelConfig(
        self, request: messages.ModelConfigRequest, context: Context
    ) -> messages.ModelConfigResponse:
        """The configuration of a model."""
        model = self._models.find(model_key(request.name, request.version))
        max_texts = self._models.limits.max_texts
        return messages.ModelConfigResponse(config=descriptions.config(model, max_texts))

    async def ModelInfer(
        self, request: messages.ModelInferRequest, context: Context
    ) -> messages.ModelInferResponse:
        """Run one request."""
        return await self._runner.infer(request, context.time_remaining())

    async def ModelStreamInfer(  # type: ignore[override]  # grpc.aio also takes a coroutine that writes
        self, requests: AsyncIterator[messages.ModelInferRequest], context: Context
    ) -> None:
        """Run the requests of a stream."""
        await InferenceStream(self._runner, self._application, context).answer(requests)

    async def ModelStatistics(
        self, request: messages.ModelStatisticsRequest, context: Context
    ) -> messages.ModelStatisticsResponse:
        """What one model, or each, has done so far."""
        if request.name:
            chosen = [self._models.find(model_key(request.name, request.version))]
        else:
            chosen = [each.description for each in self._models.list()]
        figures = self._application.statistics.read()
        return messages.ModelStatisticsResponse(
            model_stats=[descriptions.statistics(model, figures[model.key]) for model in chosen]
        )

    async def RepositoryIndex(
        self, request: messages.RepositoryIndexRequest, context: Context
    ) -> messages.RepositoryIndexResponse:
        """The models that the server serves or loads."""
        _check_repository(request.repository_name)
        return descriptions.index(self._models.list(), request.ready)

    async def RepositoryModelLoad(
        self, request: messages.RepositoryModelLoadRequest, context: Context
    ) -> messages.RepositoryModelLoadResponse:
        """Load a bundle of the server's folder."""
        self._check_change(request)
        if request.parameters:
            raise Unsupported("parameters: a bundle is loaded as it is")
        await self._application.control.load(request.model_name)
        return messages.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: messages.RepositoryModelUnloadRequest, context: Context
    ) -> messages.RepositoryModelUnloadResponse:
        """Stop serving a model."""
        self._check_change(request)
        if set(request.parameters) - {UNLOAD_DEPENDENTS}:
            raise Unsupported(f"parameters: there is only {UNLOAD_DEPENDENTS}")
        await self._application.control.unload(request.model_name)
        return messages.RepositoryModelUnloadResponse()

    def _check_change(
        self,
        request: messages.RepositoryModelLoadRequest | messages.RepositoryModelUnloadRequest,
    ) -> None:
        if not self._can_change:
            raise Unsupported("models are not loaded or unloaded by calls (see --model-control)")
        _check_repository(request.repository_name)
        model_key(request.model_name, "")

    async def SystemSharedMemoryStatus(
        self, request: messages.SystemSharedMemoryStatusRequest, context: Context
    ) -> messages.SystemSharedMemoryStatusResponse:
        """No regions, because none can be registered."""
        return messages.SystemSharedMemoryStatusResponse()

    async def CudaSharedMemoryStatus(
        self, request: messages.CudaSharedMemoryStatusRequest, context: Context
    ) -> messages.CudaSharedMemoryStatusResponse:
        """No regions, because none can be registered."""
        return messages.CudaSharedMemoryStatusResponse()

    async def SystemSharedMemoryUnregister(
        self, request: messages.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> messages.SystemSharedMemoryUnregisterResponse:
        """Nothing, because no region is registered; clients call it to begin anew."""
        return messages.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryUnregister(
        self, request: messages.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> messages.CudaSharedMemoryUnregisterResponse:
        """Nothing, because no region is registered; clients call it to begin anew."""
        return messages.CudaSharedMemoryUnregisterResponse()

    async def SystemSharedMemoryRegister(
        self, request: messages.SystemSharedMemoryRegisterRequest, context: Context
    ) -> messages.SystemSharedMemoryRegisterResponse:
        """Refused."""
        raise Unsupported("shared memory is not supported; send the tensors themselves")

    async def CudaSharedMemoryRegister(
        self, request: messages.CudaSharedMemoryRegisterRequest, context: Context
    ) -> messages.CudaSharedMemoryRegisterResponse:
        """Refused."""
        raise Unsupported("shared memory is not supported; send the tensors themselves")

    async def TraceSetting(
        self, request: messages.TraceSettingRequest, context: Context
    ) -> messages.TraceSettingResponse:
        """Refused."""
        raise Unsupported("calls are traced as --trace-endpoint and their metadata say")

    async def LogSettings(
        self, request: messages.LogSettingsRequest, context: Context
    ) -> messages.LogSettingsResponse:
        """Refused."""
        raise Unsupported("the log is set up when the server starts (see --log-level)")


def _check_repository(name: str) -> None:
    if name:
        raise InvalidRequest("repository_name", "must be empty: there is one folder of bundles")
