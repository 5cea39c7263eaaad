"""Stacks of layers as graph nodes. The counterpart of `models.stack`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from attendant.v1.architecture_pb2 import (
    NORM_POSITION_NONE,
    NORM_POSITION_POST,
    NORM_POSITION_SANDWICH,
    AlignmentAttention,
    Attention,
    LayerGroup,
    Stack,
    Unfolding,
)

from attendant_export.graphs import ssru
from attendant_export.graphs.attention import norm_queries_and_keys
from attendant_export.graphs.convolution import Kernels, convolve
from attendant_export.graphs.feed_forward import feed_forward
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.mixture_of_experts import mix_experts
from attendant_export.graphs.norm import norm
from attendant_export.models.stack import each_layer, running_order

Sublayer = Callable[[str], str]
"""Adds the nodes of a sublayer for an input value and returns the output value."""
Attend = Callable[[int, Attention, str], str]
"""Adds the self-attention of a layer, given its number and its projected input (rows, fused).
Returns (rows, inner)."""

SourcePart: TypeAlias = Attention | AlignmentAttention | Unfolding
AttendSource = Callable[[int, SourcePart, str], str]
"""Adds the attention of a layer to the source, given its number and its projected queries (rows,
inner), or the states (rows, d_model) of an alignment function or an unfolding. Returns weighted
values, or the encoder's outputs, of the same shape."""

Recur = Callable[[int, LayerGroup, str], str]
"""Adds the recurrence of a layer, given its number and the products of its gates (rows, gates).
Returns the states after each token (rows, d_model)."""


def run_stack(
    g: Layers,
    part: Stack,
    name: str,
    x: str,
    attend: Attend,
    attend_source: AttendSource | None = None,
    recur: Recur | None = None,
    tokens_of: Kernels | None = None,
) -> Iterator[str]:
    """The output (rows, d_model) of each layer in turn, without the final norm.

    ``name`` is the name of the stack in the model. Only a decoder has ``attend_source``, only
    stacks with recurrences need ``recur``, and only those with convolutions ``tokens_of``.
    """
    groups = each_layer(part)
    for number in running_order(part):
        group = groups[number]
        layer = _Layer(g, part, group, f"{name}.{number}", number)
        if attend_source is not None and group.HasField("unfolding"):
            x = layer.unfolding(x, attend_source)
        if group.HasField("self_attention"):
            x = layer.self_attention(x, attend)
        elif group.HasField("convolution"):
            assert tokens_of is not None, "a rule of models"
            x = layer.convolution(x, tokens_of)
        else:
            assert recur is not None, "a rule of models"
            x = layer.recurrence(x, recur)
        if attend_source is not None and group.HasField("cross_attention"):
            x = layer.cross_attention(x, attend_source)
        if attend_source is not None and group.HasField("alignment_attention"):
            x = layer.alignment_attention(x, attend_source)
        if group.HasField("feed_forward"):
            x = layer.feed_forward(x)
        if group.HasField("mixture_of_experts"):
            x = layer.mixture_of_experts(x)
        yield x


def final_norm(g: Layers, part: Stack, name: str, x: str) -> str:
    """``x`` after the final norm of the stack ``name``, if it has one."""
    return norm(g, part, f"{name}_norm", x) if part.has_final_norm else x


class _Layer:
    def __init__(self, g: Layers, part: Stack, group: LayerGroup, name: str, number: int) -> None:
        self._g, self._part, self._group = g, part, group
        self._name, self._number = name, number

    def self_attention(self, x: str, attend: Attend) -> str:
        def sublayer(y: str) -> str:
            part, name = self._group.self_attention, f"{self._name}.self_attention"
            fused = self._g.linear(y, f"{name}.query_key_value")
            fused = norm_queries_and_keys(self._g, part, name, fused)
            weighted = attend(self._number, part, fused)
            return self._g.linear(weighted, f"{name}.output")

        has_norm = not self._group.lacks_mixer_norm
        return self._residual(x, "self_attention_residual", sublayer, has_norm)

    def recurrence(self, x: str, recur: Recur) -> str:
        is_ssru = self._group.HasField("ssru")
        mixer, layer = ("ssru", "gates") if is_ssru else ("recurrent", "input")

        def sublayer(y: str) -> str:
            gates = self._g.linear(y, f"{self._name}.{mixer}.{layer}")
            states = recur(self._number, self._group, gates)
            return ssru.output(self._g, states) if is_ssru else self._g.rounded(states)

        has_norm = not self._group.lacks_mixer_norm
        return self._residual(x, f"{mixer}_residual", sublayer, has_norm)

    def convolution(self, x: str, tokens_of: Kernels) -> str:
        def sublayer(y: str) -> str:
            part, number = self._group.convolution, self._number
            name = f"{self._name}.convolution"
            kernel = partial(tokens_of, number, part)
            return convolve(self._g, part, self._part, name, y, kernel)

        has_norm = not self._group.lacks_mixer_norm
        return self._residual(x, "convolution_residual", sublayer, has_norm)

    def unfolding(self, x: str, attend: AttendSource) -> str:
        def sublayer(y: str) -> str:
            read = attend(self._number, self._group.unfolding, y)
            both = self._g.op("Concat", read, y, axis=1)
            return self._g.linear(both, f"{self._name}.unfolding.output")

        return self._residual(x, "unfolding_residual", sublayer)

    def cross_attention(self, x: str, attend: AttendSource) -> str:
        def sublayer(y: str) -> str:
            query = self._g.linear(y, f"{self._name}.cross_attention.query")
            weighted = attend(self._number, self._group.cross_attention, query)
            return self._g.linear(weighted, f"{self._name}.cross_attention.output")

        return self._residual(x, "cross_attention_residual", sublayer)

    def alignment_attention(self, x: str, attend: AttendSource) -> str:
        def sublayer(y: str) -> str:
            context = attend(self._number, self._group.alignment_attention, y)
            both = self._g.op("Concat", context, y, axis=1)
            return self._g.op(
                "Tanh", self._g.linear(both, f"{self._name}.alignment_attention.output")
            )

        return self._residual(x, "alignment_attention_residual", sublayer)

    def feed_forward(self, x: str) -> str:
        def sublayer(y: str) -> str:
            return feed_forward(self._g, self._group.feed_forward, f"{self._name}.feed_forward", y)

        return self._residual(x, "feed_forward_residual", sublayer)

    def mixture_of_experts(self, x: str) -> str:
        def sublayer(y: str) -> str:
            name = f"{self._name}.mixture_of_experts"
            return mix_experts(self._g, self._group.mixture_of_experts, name, y)

        return self._residual(x, "mixture_of_experts_residual", sublayer)

    def _residual(self, x: str, name: str, sublayer: Sublayer, has_norm: bool = True) -> str:
        g, part, norm_name = self._g, self._part, f"{self._name}.{name}.norm"
        if part.norm_position == NORM_POSITION_NONE:
            return sublayer(x)
        if part.norm_position == NORM_POSITION_POST:
            return norm(g, part, norm_name, g.op("Add", x, sublayer(x)))
        y = sublayer(norm(g, part, norm_name, x) if has_norm else x)
        if part.norm_position == NORM_POSITION_SANDWICH:
            y = norm(g, part, f"{self._name}.{name}.output_norm", y)
        return g.op("Add", x, y)
