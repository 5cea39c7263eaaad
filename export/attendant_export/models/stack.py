"""Stacks of layers: token mixer, cross-attention in a decoder, channel mixer."""

from typing import TypeAlias, cast

from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import NORM_POSITION_PRE, LayerGroup
from torch import Tensor, nn

from attendant_export.models.attention import KeyValue, MultiHeadAttention
from attendant_export.models.feed_forward import FeedForward
from attendant_export.models.norm import Residual
from attendant_export.models.ssru import Ssru
from attendant_export.models.unsupported import check_at_least_one, unsupported

MixerState: TypeAlias = KeyValue | Tensor
"""The state of a token mixer after some tokens: keys and values, or the vectors of an SSRU."""


def each_layer(part: architecture_pb2.Stack) -> list[LayerGroup]:
    """The layer group of each layer, in order. Layers that run several times are listed once."""
    return [group for group in part.groups for _ in range(group.num_layers)]


def running_order(part: architecture_pb2.Stack) -> list[int]:
    """The numbers of the layers in the order in which they run, repeated ones several times."""
    order: list[int] = []
    first = 0
    for group in part.groups:
        order += [*range(first, first + group.num_layers)] * (group.num_repeats or 1)
        first += group.num_layers
    return order


def check_attention_only(part: architecture_pb2.Stack) -> None:
    """Raise ValueError if a token mixer is not for an encoder, which sees whole texts."""
    if any(group.HasField("ssru") for group in part.groups):
        raise ValueError("LayerGroup.ssru: is not for an encoder")


class Layer(nn.Module):
    """One layer of a group."""

    def __init__(
        self, group: LayerGroup, part: architecture_pb2.Stack, d_model: int, dropout: float
    ) -> None:
        super().__init__()
        self.is_recurrent, has_norm = group.HasField("ssru"), not group.lacks_mixer_norm
        if self.is_recurrent:
            self.ssru = Ssru(d_model)
            self.ssru_residual = Residual(part, d_model, dropout, has_norm)
        else:
            self.self_attention = MultiHeadAttention(group.self_attention, d_model)
            self.self_attention_residual = Residual(part, d_model, dropout, has_norm)
        if group.HasField("cross_attention"):
            self.cross_attention = MultiHeadAttention(group.cross_attention, d_model)
            self.cross_attention_residual = Residual(part, d_model, dropout)
        self.feed_forward = FeedForward(group.feed_forward, d_model)
        self.feed_forward_residual = Residual(part, d_model, dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        past: MixerState | None = None,
        memory: KeyValue | None = None,
        memory_mask: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, MixerState]:
        """The layer's output (batch, length, d_model), and the state of its token mixer.

        ``x`` is (batch, length, d_model). The masks and the bias of self-attention are those of
        `MultiHeadAttention`. A decoder layer needs ``memory``, the keys and values of its
        cross-attention.
        """
        present: MixerState
        if self.is_recurrent:
            mixed, present = self.ssru(self.ssru_residual.before(x), past)
            x = self.ssru_residual.after(x, mixed)
        else:
            residual = self.self_attention_residual
            mixed, present = self.self_attention(residual.before(x), mask, past, bias)
            x = residual.after(x, mixed)
        if memory is not None:
            residual = self.cross_attention_residual
            x = residual.after(
                x, self.cross_attention.attend(residual.before(x), memory, memory_mask)
            )
        residual = self.feed_forward_residual
        return residual.after(x, self.feed_forward(residual.before(x))), present


class Stack(nn.ModuleList):
    """The layers of an encoder or a decoder, without `norm.final_norm`."""

    def __init__(self, part: architecture_pb2.Stack, d_model: int, dropout: float) -> None:
        """Raises ValueError that names an unsupported field. The stack may have no layers."""
        _check(part)
        super().__init__(Layer(group, part, d_model, dropout) for group in each_layer(part))
        self._order = running_order(part)

    @property
    def layers(self) -> list[Layer]:
        """The layers in the order in which they run."""
        return [cast(Layer, self[number]) for number in self._order]


def _check(part: architecture_pb2.Stack) -> None:
    for group in part.groups:
        check_at_least_one(group, "num_layers")
        if group.lacks_mixer_norm and part.norm_position != NORM_POSITION_PRE:
            raise unsupported(group, "lacks_mixer_norm", "is for pre-norm only")
        mixers = {
            "token_mixer": group.WhichOneof("token_mixer"),
            "channel_mixer": group.WhichOneof("channel_mixer"),
        }
        for name, mixer in mixers.items():
            if mixer not in ("self_attention", "ssru", "feed_forward"):
                raise ValueError(f"LayerGroup.{name}: {mixer} is not supported")
    if part.groups and part.norm_epsilon <= 0:
        raise unsupported(part, "norm_epsilon", "is not positive")
