"""An average of the weights of a training over its steps."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's parameters (Polyak and Juditsky, 1992).

    The average forgets its first steps faster than later ones: after ``n`` steps, the decay is at
    most ``n / (n + 9)``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with the parameters as they are."""
        self._parameters = dict(model.named_parameters())
        self._decay = decay
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, num_steps: int) -> None:
        """Take in the parameters after step ``num_steps``."""
        decay = min(self._decay, num_steps / (num_steps + 9))
        current: list[Tensor] = list(self._parameters.values())
        torch._foreach_lerp_(list(self._averages.values()), current, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the average as its parameters while the body runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Continue with the average ``weights``, which has all parameters by their names."""
        for name, average in self._averages.items():
            average.copy_(weights[name])

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._averages[name] = self._averages[name], parameter.data
