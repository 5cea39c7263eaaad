"""Convolutions as graph nodes, for one token per row and for whole texts. See `models.convolution`.

A kernel is a linear layer of its tokens side by side. So steps, encoder and scorer compute the same
product in every precision, and each row of an int8 product has its own scale. Weights of depthwise
convolutions are fp32 in every precision.
"""

from collections.abc import Callable

import numpy as np
from attendant.v1.architecture_pb2 import Architecture, Convolution, ConvolutionStep, Stack

from attendant_export.graphs.layers import Layers
from attendant_export.graphs.norm import norm_of_sublayer
from attendant_export.models.convolution import (
    convolutions,
    reach,
    state_widths,
    step_widths,
    tokens_before,
)

Kernel = Callable[[int, str], str]
"""Adds the nodes that find the tokens of each row's kernel, given the number of the step and its
input (rows, width). Returns (rows, kernel_size x width), the earliest token first."""
Kernels = Callable[[int, Convolution, int, str], str]
"""The same for a stack, given the number of the layer and its part as well."""


def convolve(
    g: Layers, part: Convolution, stack: Stack, name: str, x: str, tokens_of: Kernel
) -> str:
    """``x`` (rows, d_model) after the convolutions of the part ``name`` in the model."""
    for number, step in enumerate(part.steps):
        if number:
            x = norm_of_sublayer(g, stack, f"{name}.norms.{number}", x)
        of_step = f"{name}.steps.{number}"
        if step.kernel_size == 1 and not step.is_separable:
            x = g.linear(g.activation_between(x, part.activation), f"{of_step}.linear")
            continue
        x = g.activation(x, part.activation)
        tokens = x if step.kernel_size == 1 else tokens_of(number, x)
        if step.is_separable:
            tokens = _depthwise(g, f"{of_step}.depthwise", tokens)
        x = g.linear(tokens, f"{of_step}.linear")
    return x


def _depthwise(g: Layers, name: str, tokens: str) -> str:
    """The sum over the tokens of a kernel, each channel with weights of its own: (rows, width)."""
    size, width = g.parameters[name].shape
    by_token = g.op("Reshape", g.fp32(tokens), g.integers(-1, size, width))
    products = g.op("Mul", by_token, g.fp32_parameter(name))
    return g.rounded(g.op("ReduceSum", products, g.integers(1), keepdims=0))


class TextKernels:
    """The kernels of the tokens of whole texts, of which each row is one token."""

    def __init__(self, g: Layers, d_model: int, positions: str, lengths: str = "") -> None:
        """``positions`` (rows) are those of the tokens in their texts.

        ``lengths`` (rows) are the numbers of tokens of the rows' texts. Without them, all
        convolutions are causal. The rows of a text are adjacent.
        """
        self._g, self._d_model = g, d_model
        self._positions, self._lengths = positions, lengths
        self._places: dict[tuple[int, int, int], str] = {}

    def tokens(self, _: int, part: Convolution, number: int, x: str) -> str:
        """`Kernels`."""
        g, step = self._g, part.steps[number]
        width = step_widths(part, self._d_model)[number][0]
        # Tokens outside of a text are the row after the last one.
        rows = g.op("Concat", x, g.constant(np.zeros((1, width), g.dtype)), axis=0)
        found = g.op("Gather", rows, self._places_of(part, step))  # (rows, kernel_size, width)
        return g.rows(found, step.kernel_size * width)

    def _places_of(self, part: Convolution, step: ConvolutionStep) -> str:
        """The number of the row of each token of a kernel: (rows, kernel_size)."""
        before, dilation = tokens_before(part, step), step.dilation or 1
        key = step.kernel_size, dilation, before
        if key not in self._places:
            offsets = np.arange(step.kernel_size) * dilation - before
            self._places[key] = self._places_at(offsets)
        return self._places[key]

    def _places_at(self, offsets: np.ndarray) -> str:
        g = self._g
        shift = g.constant(offsets.astype(np.int64))
        place = g.op("Add", g.op("Unsqueeze", self._positions, g.integers(1)), shift)
        is_inside = g.op("GreaterOrEqual", place, g.integer(0))
        if self._lengths:
            ends = g.op("Unsqueeze", self._lengths, g.integers(1))
            is_inside = g.op("And", is_inside, g.op("Less", place, ends))
        count = g.op("Squeeze", g.op("Shape", self._positions))
        rows = g.op("Range", g.integer(0), count, g.integer(1))
        rows = g.op("Add", g.op("Unsqueeze", rows, g.integers(1)), shift)
        return g.op("Where", is_inside, rows, count)


def kernels_of_targets(g: Layers, architecture: Architecture, batch: str) -> Kernels | None:
    """The kernels of the decoder's convolutions, of whole targets, if it has any.

    ``batch`` holds their shape (batch, target).
    """
    if not any(convolutions(architecture.decoder)):
        return None
    positions = g.flat(g.op("Expand", g.positions(batch), batch))
    return TextKernels(g, architecture.d_model, positions).tokens


class StepKernels:
    """The kernels of one token per row, after the tokens that the row's state keeps.

    All convolutions of a decoder share one state (rows, values): of each kernel in turn, the last
    inputs, from the earliest on.
    """

    def __init__(self, g: Layers, architecture: Architecture, state: str) -> None:
        self._g, self._state, self._d_model = g, state, architecture.d_model
        self._firsts: dict[tuple[int, int], int] = {}
        self._after: list[str] = []
        first = 0
        for layer, part in convolutions(architecture.decoder):
            for number, width in enumerate(state_widths(part, self._d_model)):
                self._firsts[layer, number] = first
                first += width

    def tokens(self, layer: int, part: Convolution, number: int, x: str) -> str:
        """`Kernels`. Layers and steps run in order."""
        g, step = self._g, part.steps[number]
        width, first = step_widths(part, self._d_model)[number][0], self._firsts[layer, number]
        last = first + reach(step) * width
        if reach(step) > 1:
            self._after.append(self._columns(first + width, last))
        self._after.append(g.fp32(x))
        distance = (step.dilation or 1) * width
        if distance == width:
            kept = [self._columns(first, last)]
        else:
            places = range(first, last, distance)
            kept = [self._columns(place, place + width) for place in places]
        return g.op("Concat", *map(g.rounded, kept), x, axis=1)

    def after(self) -> str:
        """The state after the token, once all convolutions have run."""
        return self._g.op("Concat", *self._after, axis=1)

    def _columns(self, first: int, last: int) -> str:
        g = self._g
        return g.op("Slice", self._state, g.integers(first), g.integers(last), g.integers(1))
