"""Models that have types of tokens, but read every text and pair with the first type only."""

from collections.abc import Mapping

from attendant.v1.architecture_pb2 import Architecture
from torch import Tensor

from attendant_export.importers.weight_names import Weights

TABLE = "token_type_embeddings.weight"
"""The end of the name of a table of types."""


def without_token_types(weights: Weights, architecture: Architecture) -> Weights:
    """The weights for a network with one type, which ``architecture`` becomes."""
    part = architecture.source_embeddings
    if part.num_token_types < 2:
        return weights
    num_types, part.num_token_types = part.num_token_types, 1
    return _FirstType(weights, num_types)


class _FirstType:
    """Weights whose tables of types have their first row only."""

    def __init__(self, weights: Weights, num_types: int) -> None:
        self._weights, self._num_types = weights, num_types

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        shapes = self._weights.shapes
        return {
            name: (1, *shape[1:]) if self._is_table(name) else shape
            for name, shape in shapes.items()
        }

    def read(self, name: str) -> Tensor:
        """One tensor, in fp32."""
        tensor = self._weights.read(name)
        return tensor[:1] if self._is_table(name) else tensor

    def _is_table(self, name: str) -> bool:
        return name.endswith(TABLE) and self._weights.shapes[name][0] == self._num_types
