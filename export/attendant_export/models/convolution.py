"""Convolutions over the tokens of a sequence, a token mixer. `architecture.proto` has the equation.

A product with the weights of a whole kernel is that of a linear layer with the tokens of the
kernel side by side, so that graphs compute steps and whole texts in the same way.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import Architecture, Stack
from attendant_manifest.step_rules import MAX_DIMENSION
from torch import Tensor, nn

from attendant_export.models.feed_forward import Activation
from attendant_export.models.norm import norm_of_sublayer
from attendant_export.models.unsupported import unsupported

MAX_STEPS, MAX_KERNEL_SIZE, MAX_DILATION = 8, 64, 256


def reach(step: architecture_pb2.ConvolutionStep) -> int:
    """The number of tokens from the first to the last one of a kernel, without the last."""
    return (step.kernel_size - 1) * (step.dilation or 1)


def tokens_before(
    part: architecture_pb2.Convolution, step: architecture_pb2.ConvolutionStep
) -> int:
    """The number of tokens from the first one of a kernel to the token that it is for."""
    if part.is_causal:
        return reach(step)
    return (step.kernel_size - 1) // 2 * (step.dilation or 1)


def step_widths(part: architecture_pb2.Convolution, d_model: int) -> list[tuple[int, int]]:
    """The widths of the input and the output of each step."""
    outputs = [step.d_output or d_model for step in part.steps]
    return list(zip([d_model, *outputs], outputs, strict=False))


def state_widths(part: architecture_pb2.Convolution, d_model: int) -> list[int]:
    """The number of values that each step keeps of the tokens before the next one."""
    widths = step_widths(part, d_model)
    return [reach(step) * width for step, (width, _) in zip(part.steps, widths, strict=True)]


class ConvolutionStep(nn.Module):
    """The weights of one kernel."""

    def __init__(self, part: architecture_pb2.ConvolutionStep, d_input: int, d_output: int) -> None:
        super().__init__()
        self._part = part
        size = part.kernel_size
        if part.is_separable:
            self.depthwise = nn.Parameter(torch.randn(size, d_input) * size**-0.5)
        self.linear = nn.Linear(d_input * (1 if part.is_separable else size), d_output)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, padded: Tensor) -> Tensor:
        """Outputs (batch, length, d_output) of ``padded`` (batch, length + reach, d_input)."""
        size, dilation = self._part.kernel_size, self._part.dilation or 1
        if self._part.is_separable:
            weight, channels = self.depthwise.T[:, None], padded.transpose(1, 2)
            with torch.autocast(padded.device.type, enabled=False):
                mixed = F.conv1d(channels.float(), weight, dilation=dilation, groups=len(weight))
            return self.linear(mixed.transpose(1, 2))  # type: ignore[no-any-return]
        length = padded.shape[1] - reach(self._part)
        tokens = [padded[:, i * dilation : i * dilation + length] for i in range(size)]
        return self.linear(torch.cat(tokens, dim=-1))  # type: ignore[no-any-return]


class Convolution(nn.Module):
    """The convolutions of one layer, without the residual connection and its norm."""

    def __init__(self, part: architecture_pb2.Convolution, stack: Stack, d_model: int) -> None:
        super().__init__()
        _check(part, d_model)
        self._part, self._state_widths = part, state_widths(part, d_model)
        widths = step_widths(part, d_model)
        self.activation = Activation(part, "activation")
        self.steps = nn.ModuleList(
            ConvolutionStep(step, *both) for step, both in zip(part.steps, widths, strict=True)
        )
        norms = [norm_of_sublayer(stack, d_input) for d_input, _ in widths[1:]]
        self.norms = nn.ModuleList([nn.Identity(), *norms])

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mix ``x`` (batch, length, d_model), whose tokens follow those of ``state``.

        Returns the output, shaped like ``x``, and the state (batch, values) after the last token:
        the inputs of each kernel that the next token needs, from the earliest on. A state of 0
        stands for no tokens. The part is causal.
        """
        assert self._part.is_causal
        if state is None:
            state = x.new_zeros(len(x), sum(self._state_widths))
        pieces, after = state.split(self._state_widths, dim=1), []
        for number, (step, piece) in enumerate(zip(self._part.steps, pieces, strict=True)):
            x = self._before(number, x)
            kept = piece.to(x.dtype).reshape(len(x), reach(step), x.shape[2])
            padded = torch.cat([kept, x], dim=1)
            after.append(padded[:, padded.shape[1] - reach(step) :].flatten(1))
            x = self.steps[number](padded)
        return x, torch.cat(after, dim=1)

    def mix_texts(self, x: Tensor, is_real: Tensor) -> Tensor:
        """Mix texts ``x`` (batch, length, d_model); False in ``is_real`` (batch, length): padding.

        Outputs at padding are undefined.
        """
        for number, step in enumerate(self._part.steps):
            x = self._before(number, x) * is_real[:, :, None]
            left = tokens_before(self._part, step)
            x = self.steps[number](F.pad(x, (0, 0, left, reach(step) - left)))
        return x

    def _before(self, number: int, x: Tensor) -> Tensor:
        """The input of a kernel."""
        return self.activation(self.norms[number](x))  # type: ignore[no-any-return]


def convolutions(stack: Stack) -> Iterator[tuple[int, architecture_pb2.Convolution]]:
    """The numbers and the parts of the layers with convolutions."""
    layers = [group for group in stack.groups for _ in range(group.num_layers)]
    for number, group in enumerate(layers):
        if group.HasField("convolution"):
            yield number, group.convolution


def state_width(architecture: Architecture) -> int:
    """The number of values that a row keeps for all convolutions of the decoder."""
    parts = convolutions(architecture.decoder)
    return sum(sum(state_widths(part, architecture.d_model)) for _, part in parts)


def check_decoder_convolutions(architecture: Architecture) -> None:
    """Raise ValueError for convolutions that a decoder cannot have."""
    number = state_width(architecture)
    if number > MAX_DIMENSION:
        raise ValueError(
            f"Architecture.decoder: its convolutions keep {number:,} values of earlier tokens, "
            f"but at most {MAX_DIMENSION:,} are supported"
        )
    groups = architecture.decoder.groups
    for group in groups:
        if not group.HasField("convolution"):
            continue
        if not group.convolution.is_causal:
            raise unsupported(group.convolution, "is_causal", "is not for a decoder")
        if not any(map(reach, group.convolution.steps)):
            raise ValueError("Convolution.steps: a decoder needs a kernel_size above 1")
        if any(other.HasField("ssru") or other.HasField("recurrent") for other in groups):
            raise ValueError("LayerGroup.convolution: is set beside a recurrence of the decoder")


def _check(part: architecture_pb2.Convolution, d_model: int) -> None:
    if not 1 <= len(part.steps) <= MAX_STEPS:
        raise ValueError(f"Convolution.steps: {len(part.steps)} is not between 1 and {MAX_STEPS}")
    for step in part.steps:
        if not 1 <= step.kernel_size <= MAX_KERNEL_SIZE:
            raise unsupported(step, "kernel_size", f"is not between 1 and {MAX_KERNEL_SIZE}")
        if step.dilation > MAX_DILATION:
            raise unsupported(step, "dilation", f"is above {MAX_DILATION}")
    if (part.steps[-1].d_output or d_model) != d_model:
        raise unsupported(part.steps[-1], "d_output", f"differs from d_model {d_model}")
