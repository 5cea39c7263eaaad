"""Feed-forward networks and their activations."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    ACTIVATION_TANH,
)
from google.protobuf.message import Message
from torch import Tensor, nn

from attendant_export.models.unsupported import check_at_least_one, unsupported

_ACTIVATIONS: dict[architecture_pb2.Activation.ValueType, Callable[[Tensor], Tensor]] = {
    ACTIVATION_RELU: F.relu,
    ACTIVATION_GELU: F.gelu,
    ACTIVATION_GELU_TANH: partial(F.gelu, approximate="tanh"),
    ACTIVATION_SILU: F.silu,
    ACTIVATION_TANH: torch.tanh,
}


class Activation(nn.Module):
    """The activation of a field in the architecture. Raises ValueError if it is not supported."""

    def __init__(self, part: Message, field: str) -> None:
        super().__init__()
        if getattr(part, field) not in _ACTIVATIONS:
            raise unsupported(part, field)
        self._function = _ACTIVATIONS[getattr(part, field)]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to each value of ``x``."""
        return self._function(x)


class GatedActivation(Activation):
    """The activation of the first half of the channels times the second half (Shazeer, 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2 d_feed_forward) to (..., d_feed_forward)."""
        gate, values = x.chunk(2, dim=-1)
        return super().forward(gate) * values


class FeedForward(nn.Sequential):
    """Position-wise feed-forward network ("Attention Is All You Need", section 3.3)."""

    def __init__(self, part: architecture_pb2.FeedForward, d_model: int) -> None:
        check_at_least_one(part, "d_feed_forward")
        activation = (GatedActivation if part.is_gated else Activation)(part, "activation")
        width = part.d_feed_forward * (2 if part.is_gated else 1)
        expand = nn.Linear(d_model, width, bias=part.has_bias)
        contract = nn.Linear(part.d_feed_forward, d_model, bias=part.has_bias)
        super().__init__(expand, activation, contract)
        for linear in (expand, contract):
            nn.init.xavier_uniform_(linear.weight)
            if part.has_bias:
                nn.init.zeros_(linear.bias)
