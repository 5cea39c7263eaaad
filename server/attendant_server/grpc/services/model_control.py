"""ModelControlService: LoadModel and UnloadModel."""

from attendant.v1 import model_control_pb2, model_control_pb2_grpc

from attendant_server.application.application import Application
from attendant_server.grpc.context import Context
from attendant_server.grpc.services.model import model_info


class ModelControlService(model_control_pb2_grpc.ModelControlServiceServicer):
    """Changes the set of models."""

    def __init__(self, application: Application) -> None:
        self._control = application.control

    async def LoadModel(
        self, request: model_control_pb2.LoadModelRequest, context: Context
    ) -> model_control_pb2.LoadModelResponse:
        """Load a bundle of the server's folder."""
        model = await self._control.load(request.model)
        return model_control_pb2.LoadModelResponse(model=model_info(model))

    async def UnloadModel(
        self, request: model_control_pb2.UnloadModelRequest, context: Context
    ) -> model_control_pb2.UnloadModelResponse:
        """Stop serving a model."""
        model = await self._control.unload(request.model)
        return model_control_pb2.UnloadModelResponse(model=model)
