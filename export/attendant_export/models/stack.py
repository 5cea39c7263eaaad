"""Stacks of layers: token mixer, attention to the source in a decoder, channel mixer."""

from typing import TypeAlias, cast

from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import NORM_POSITION_NONE, NORM_POSITION_PRE, LayerGroup
from torch import Tensor, nn

from attendant_export.models.alignment_attention import AlignmentAttention
from attendant_export.models.attention import KeyValue, MultiHeadAttention
from attendant_export.models.convolution import Convolution
from attendant_export.models.feed_forward import FeedForward
from attendant_export.models.mixture_of_experts import MixtureOfExperts
from attendant_export.models.norm import Residual
from attendant_export.models.recurrent import Recurrent
from attendant_export.models.ssru import Ssru
from attendant_export.models.unfolding import Unfolding
from attendant_export.models.unsupported import check_at_least_one, unsupported

MixerState: TypeAlias = KeyValue | Tensor
"""The state of a token mixer after some tokens: keys and values, the vectors of a recurrence, or
the last inputs of convolutions."""
SourcePart: TypeAlias = MultiHeadAttention | AlignmentAttention | Unfolding
MIXERS = ("self_attention", "ssru", "recurrent", "convolution")
_ALONE = ("recurrent", "convolution")
"""Token mixers of layers that may lack other parts."""


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


def check_encoder(part: architecture_pb2.Stack) -> None:
    """Raise ValueError for a part of layers that is for decoders only."""
    for group in part.groups:
        for name in ("ssru", "cross_attention", "alignment_attention", "unfolding"):
            if group.HasField(name):
                raise ValueError(f"LayerGroup.{name}: is not for an encoder")
        if group.recurrent.starts_from_source:
            raise unsupported(group.recurrent, "starts_from_source", "is not for an encoder")


class Layer(nn.Module):
    """One layer of a group."""

    def __init__(
        self, group: LayerGroup, part: architecture_pb2.Stack, d_model: int, dropout: float
    ) -> None:
        super().__init__()
        self._mixer, has_norm = group.WhichOneof("token_mixer"), not group.lacks_mixer_norm
        if group.HasField("unfolding"):
            self.unfolding = Unfolding(group.unfolding, d_model)
            self.unfolding_residual = Residual(part, d_model, dropout)
        if self._mixer == "self_attention":
            self.self_attention = MultiHeadAttention(group.self_attention, d_model)
            self.self_attention_residual = Residual(part, d_model, dropout, has_norm)
        elif self._mixer == "ssru":
            self.ssru = Ssru(d_model)
            self.ssru_residual = Residual(part, d_model, dropout, has_norm)
        elif self._mixer == "convolution":
            self.convolution = Convolution(group.convolution, part, d_model)
            self.convolution_residual = Residual(part, d_model, dropout, has_norm)
        else:
            self.recurrent = Recurrent(group.recurrent, d_model)
            self.recurrent_residual = Residual(part, d_model, dropout, has_norm)
        if group.HasField("cross_attention"):
            self.cross_attention = MultiHeadAttention(group.cross_attention, d_model)
            self.cross_attention_residual = Residual(part, d_model, dropout)
        if group.HasField("alignment_attention"):
            self.alignment_attention = AlignmentAttention(group.alignment_attention, d_model)
            self.alignment_attention_residual = Residual(part, d_model, dropout)
        self._channel_mixer = group.WhichOneof("channel_mixer")
        if self._channel_mixer == "feed_forward":
            self.feed_forward = FeedForward(group.feed_forward, d_model)
            self.feed_forward_residual = Residual(part, d_model, dropout)
        elif self._channel_mixer == "mixture_of_experts":
            self.mixture_of_experts = MixtureOfExperts(group.mixture_of_experts, d_model)
            self.mixture_of_experts_residual = Residual(part, d_model, dropout)

    @property
    def attention_to_itself(self) -> MultiHeadAttention | None:
        """The self-attention, if the layer has one."""
        return self.self_attention if self._mixer == "self_attention" else None

    @property
    def attention_to_source(self) -> MultiHeadAttention | AlignmentAttention | None:
        """The attention of a layer of a decoder to the source, if it has one."""
        parts = self._modules.get("cross_attention"), self._modules.get("alignment_attention")
        return cast("MultiHeadAttention | AlignmentAttention | None", parts[0] or parts[1])

    @property
    def source_part(self) -> SourcePart | None:
        """What reads the source in a layer of a decoder, if anything does."""
        unfolding = cast("Unfolding | None", self._modules.get("unfolding"))
        return unfolding or self.attention_to_source

    def first_state(self, final: Tensor) -> MixerState | None:
        """The state before the first token, by `Recurrent.first_state`; None: an empty one."""
        return self.recurrent.first_state(final) if self._mixer == "recurrent" else None

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        past: MixerState | None = None,
        memory: KeyValue | None = None,
        memory_mask: Tensor | None = None,
        bias: Tensor | None = None,
        first_position: int = 0,
    ) -> tuple[Tensor, MixerState]:
        """The layer's output (batch, length, d_model), and the state of its token mixer.

        ``x`` is (batch, length, d_model). The masks and the bias of self-attention are those of
        `MultiHeadAttention`. A layer that attends to the source needs ``memory``, its keys and
        values. ``first_position`` is the number of tokens before ``x``.
        """
        if memory is not None and "unfolding" in self._modules:
            residual = self.unfolding_residual
            read = (residual.before(x), memory, memory_mask, first_position)
            x, memory = residual.after(x, self.unfolding.attend(*read)), None
        x, present = self._mix(x, mask, past, bias)
        if memory is not None:
            x = self._attend(x, memory, memory_mask, first_position)
        return self._mix_channels(x), present

    def mix_texts(self, x: Tensor, is_real: Tensor, bias: Tensor | None = None) -> Tensor:
        """The output of a layer of an encoder, which reads whole texts, shaped like ``x``.

        ``is_real`` (batch, length) is False for padding. The others are those of `forward`.
        """
        if self._mixer == "recurrent":
            residual = self.recurrent_residual
            x = residual.after(x, self.recurrent.mix_texts(residual.before(x), is_real))
        elif self._mixer == "convolution":
            residual = self.convolution_residual
            x = residual.after(x, self.convolution.mix_texts(residual.before(x), is_real))
        else:
            return self(x, is_real[:, None, None, :], bias=bias)[0]  # type: ignore[no-any-return]
        return self._mix_channels(x)

    def _mix(
        self, x: Tensor, mask: Tensor | None, past: MixerState | None, bias: Tensor | None
    ) -> tuple[Tensor, MixerState]:
        """``x`` after the token mixer and its residual connection, and the mixer's state."""
        present: MixerState
        if self._mixer == "ssru":
            residual = self.ssru_residual
            mixed, present = self.ssru(residual.before(x), past)
        elif self._mixer == "recurrent":
            residual = self.recurrent_residual
            mixed, present = self.recurrent(residual.before(x), past)
        elif self._mixer == "convolution":
            residual = self.convolution_residual
            mixed, present = self.convolution(residual.before(x), past)
        else:
            residual = self.self_attention_residual
            mixed, present = self.self_attention(residual.before(x), mask, past, bias)
        return residual.after(x, mixed), present

    def _attend(
        self, x: Tensor, memory: KeyValue, mask: Tensor | None, first_position: int
    ) -> Tensor:
        part = self.attention_to_source
        if isinstance(part, AlignmentAttention):
            residual = self.alignment_attention_residual
            found = part.attend(residual.before(x), memory, mask, first_position)
            return residual.after(x, found)
        residual = self.cross_attention_residual
        return residual.after(x, self.cross_attention.attend(residual.before(x), memory, mask))

    def _mix_channels(self, x: Tensor) -> Tensor:
        if self._channel_mixer is None:
            return x
        if self._channel_mixer == "mixture_of_experts":
            residual = self.mixture_of_experts_residual
            return residual.after(x, self.mixture_of_experts(residual.before(x)))
        residual = self.feed_forward_residual
        return residual.after(x, self.feed_forward(residual.before(x)))


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
        mixer = group.WhichOneof("token_mixer")
        if mixer not in MIXERS:
            raise ValueError(f"LayerGroup.token_mixer: {mixer} is not supported")
        if group.WhichOneof("channel_mixer") is None and mixer not in _ALONE:
            raise ValueError(f"LayerGroup.channel_mixer: None is not supported beside {mixer}")
        if group.HasField("cross_attention") and group.HasField("alignment_attention"):
            raise ValueError("LayerGroup.alignment_attention: is set beside cross_attention")
    has_norms = part.norm_position != NORM_POSITION_NONE or part.has_final_norm
    if part.groups and has_norms and part.norm_epsilon <= 0:
        raise unsupported(part, "norm_epsilon", "is not positive")
