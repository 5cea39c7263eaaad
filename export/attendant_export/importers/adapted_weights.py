"""Weights of a checkpoint that its network reads in another form than ours."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from attendant_export.importers.weight_names import Weights


class Transposed:
    """Weights of which those with some names are matrices stored as (inputs, outputs)."""

    def __init__(self, weights: Weights, pattern: str) -> None:
        """``pattern`` is a regular expression of the names."""
        self._weights, self._pattern = weights, re.compile(pattern)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor, as (outputs, inputs)."""
        return {
            name: shape[::-1] if self._pattern.fullmatch(name) else shape
            for name, shape in self._weights.shapes.items()
        }

    def read(self, name: str) -> Tensor:
        """One tensor, in fp32."""
        tensor = self._weights.read(name)
        return tensor.T.contiguous() if self._pattern.fullmatch(name) else tensor


class WithZeros:
    """Weights with further ones that are zero, such as biases that a network does not have."""

    def __init__(self, weights: Weights, zeros: Mapping[str, tuple[int, ...]]) -> None:
        """``zeros`` are the shapes of the further weights by name."""
        self._weights, self._zeros = weights, zeros

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {**self._zeros, **self._weights.shapes}

    def read(self, name: str) -> Tensor:
        """One tensor, in fp32."""
        if name in self._weights.shapes:
            return self._weights.read(name)
        return torch.zeros(self._zeros[name])
