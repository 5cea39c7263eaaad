"""Models in the form of OpenAI."""

from typing import Literal

import msgspec

from attendant_server.application.application import Application
from attendant_server.application.models import ListedModel
from attendant_server.http.exchanges import Call

OWNER = "attendant"


class Model(msgspec.Struct, kw_only=True):
    """A model that is ready or loading."""

    id: str
    """The name that requests give: ``name`` of the default version, ``name/version`` of others."""
    object: Literal["model"] = "model"
    created: int = 0
    """Always 0: bundles do not say it."""
    owned_by: str = OWNER


class ModelList(msgspec.Struct, kw_only=True):
    """All models that the caller may use."""

    object: Literal["list"] = "list"
    data: list[Model]


class ModelsHandler:
    """Lists models, and describes one."""

    def __init__(self, application: Application) -> None:
        self._models = application.models

    async def list(self, request: None, call: Call) -> ModelList:
        """All models."""
        return ModelList(data=[_model(each) for each in self._models.list()])

    async def get(self, request: None, call: Call) -> Model:
        """The model that the path names."""
        return _model(self._models.get(call.scope["path_params"]["model"]))


def _model(listed: ListedModel) -> Model:
    description = listed.description
    return Model(id=description.name if listed.is_default else description.key)
