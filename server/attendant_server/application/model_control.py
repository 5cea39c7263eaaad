"""Loading and unloading of models while the server runs, for callers that may do so."""

from typing import Protocol

from attendant_server import records
from attendant_server.application.models import ListedModel, ModelInspector
from attendant_server.errors import InvalidRequest, PermissionDenied


class Lifecycle(Protocol):
    """The part of the lifecycle of models that callers may use."""

    async def load(self, model: str) -> str:
        """Load a bundle of the server's folder; returns its key.

        Raises ModelNotFound or ModelNotLoaded.
        """

    async def unload(self, model: str) -> str:
        """Unload a model; returns its key after its last call. Raises ModelNotFound."""


class ModelController:
    """Changes the set of models. A change goes on if its caller gives up."""

    def __init__(self, lifecycle: Lifecycle, models: ModelInspector) -> None:
        self._lifecycle, self._models = lifecycle, models

    async def load(self, model: str) -> ListedModel:
        """Load ``name/version``, or the highest version of ``name``, and describe it."""
        _check(model)
        return self._models.get(await self._lifecycle.load(model))

    async def unload(self, model: str) -> str:
        """Unload ``name/version``, or the only version of ``name``; returns its key."""
        _check(model)
        return await self._lifecycle.unload(model)


def _check(model: str) -> None:
    """Raise InvalidRequest without a name, PermissionDenied for a model that is not permitted."""
    if not model:
        raise InvalidRequest("model", "must name a model")
    name, _, version = model.partition("/")
    caller = records.current().caller
    if not caller.may_use(name, version):
        raise PermissionDenied("model: this caller may not use the model")
