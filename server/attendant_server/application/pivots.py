"""Routes over a pivot language: two models for languages that no single model has."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from attendant_server import records
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.descriptions import ModelDescription, ModelKind
from attendant_server.application.language_tags import check_tag
from attendant_server.application.languages import (
    SOURCE,
    TARGET,
    has_languages,
    shared_language,
)
from attendant_server.errors import InvalidRequest, ModelNotFound, PermissionDenied
from attendant_server.records import BETWEEN_MODELS


class Route(NamedTuple):
    """Two models, one after the other."""

    first: ModelDescription
    second: ModelDescription
    written: str
    """The first model's tag of the pivot language."""
    read: str
    """The second model's tag of it."""

    @property
    def key(self) -> str:
        """The keys of both models, such as ``de-en/1+en-fr/1``."""
        return f"{self.first.key}{BETWEEN_MODELS}{self.second.key}"


class Routes:
    """The routes that the settings declare."""

    def __init__(self, catalog: Catalog, pivots: Sequence[str]) -> None:
        """``pivots`` are pairs of names or keys of models, joined by +, in order of preference."""
        self._catalog = catalog
        self._pairs = [pivot.split(BETWEEN_MODELS) for pivot in pivots]

    def find(self, model: str, source_language: str, target_language: str) -> Route | None:
        """The first route for a request that names both languages and no model.

        None if a single model has both languages. Only models that the caller may use count.
        Raises InvalidRequest for a bad tag.
        """
        if not self._pairs or model or not (source_language and target_language):
            return None
        check_tag(SOURCE, source_language)
        check_tag(TARGET, target_language)
        if any(
            each.kind is ModelKind.TRANSLATION
            and has_languages(each, source_language, target_language)
            for each in self._catalog.permitted()
        ):
            return None
        for route in self.all():
            if has_languages(route.first, source_language, "") and has_languages(
                route.second, "", target_language
            ):
                return route
        return None

    def all(self) -> Iterator[Route]:
        """All routes whose models the caller may use."""
        for names in self._pairs:
            first, second = map(self._found, names)
            if first is not None and second is not None:
                shared = shared_language(first, second)
                if shared is not None:
                    yield Route(first, second, *shared)

    def models(self, route: Route) -> tuple[ServedModel, ServedModel]:
        """The loaded models of a route, in use until the running task ends.

        Raises Unavailable if one is loading.
        """
        first, second = (self._catalog.serving(each.key) for each in (route.first, route.second))
        records.current().model = route.key
        return first, second

    def _found(self, name: str) -> ModelDescription | None:
        try:
            return self._catalog.find(name, ModelKind.TRANSLATION)
        except (InvalidRequest, ModelNotFound, PermissionDenied):
            return None
