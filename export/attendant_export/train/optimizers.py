"""The optimizers of trainings. Does not depend on models or tasks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class OptimizerChoice:
    """An optimizer, and what it does with the gradient of a step."""

    name: str
    make: Callable[..., torch.optim.Optimizer]
    """Makes the optimizer of parameters, with the learning rate ``lr``."""
    max_gradient_norm: float | None = None
    """Longer gradients are scaled down to this norm. None: they stay."""
    sums_items: bool = False
    """Whether gradients of the items of a step are added up, instead of averaged.

    The learning rate is then that of one item, whatever the size of a batch is.
    """

    def limit(self, parameters: Iterable[nn.Parameter]) -> float:
        """Clip the gradients of a step if they are to be; returns their norm before."""
        given = [each for each in parameters if each.grad is not None]
        if self.max_gradient_norm is not None:
            return nn.utils.clip_grad_norm_(given, self.max_gradient_norm).item()
        return nn.utils.get_total_norm(list(map(_gradient_values, given))).item()


def _gradient_values(parameter: nn.Parameter) -> Tensor:
    """The gradient of a parameter, or its rows if it is sparse, each row once from now on."""
    gradient: Any = parameter.grad
    if not gradient.is_sparse:
        return Tensor(gradient)
    parameter.grad = gradient.coalesce()
    values: Tensor = parameter.grad.values()
    return values


def _adagrad(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    # PyTorch warns of checks that are left out, unless they are left out on purpose.
    torch.sparse.check_sparse_tensor_invariants.disable()
    return torch.optim.Adagrad(parameters, lr=lr, initial_accumulator_value=1.0)


ADAMW = OptimizerChoice(
    "AdamW",
    partial(torch.optim.AdamW, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, fused=True),
    max_gradient_norm=1.0,
)
ADAGRAD = OptimizerChoice("AdaGrad", _adagrad, sums_items=True)
"""AdaGrad (Duchi, Hazan and Singer, 2011), whose sums of squares begin at 1 as in GloVe's program.

Updates only rows with a gradient if it is sparse.
"""
