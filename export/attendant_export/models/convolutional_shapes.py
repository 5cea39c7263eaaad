"""Convolutional stacks and mixtures of experts in place of parts of a Transformer."""

from collections.abc import Callable

from attendant.v1.architecture_pb2 import (
    ACTIVATION_RELU,
    AlignmentAttention,
    Architecture,
    Convolution,
    ConvolutionStep,
    FeedForward,
    LayerGroup,
    MixtureOfExperts,
    Stack,
    Unfolding,
)

BYTENET, SLICENET, XCEPTION = "bytenet", "slicenet", "xception"
SEPARABLE = (SLICENET, XCEPTION)
"""Kinds with depthwise separable convolutions, whose decoders attend to the source."""
BYTENET_LENGTH_FACTOR = 2
"""Outputs of ByteNet's encoder for each token of a source. The paper has 1.2 for characters;
targets of subwords are rarely twice as long as their sources."""
_NUM_DILATIONS = 5
_SLICENET_KERNELS = (3, 15)


def make_encoder_convolutional(architecture: Architecture, kind: str) -> None:
    """Replace the layers of an encoder by as many of a kind of `CONVOLUTIONS`, with the same norms.

    Raises ValueError for an odd ``d_model`` of ByteNet, whose inner layers have half of it.
    """
    architecture.encoder.CopyFrom(_stack(architecture.encoder, architecture.d_model, kind))
    if kind == BYTENET:
        architecture.source_embeddings.ClearField("positions")


def make_decoder_convolutional(
    architecture: Architecture, kind: str, alignment: AlignmentAttention
) -> None:
    """The same for a decoder, after the encoder has been replaced.

    The last of every two layers, and of all, attends to the source by ``alignment``. ByteNet has
    none: its first layer reads the encoder's outputs by position. There is one for each token, or
    `BYTENET_LENGTH_FACTOR` if the encoder is a ByteNet, too.
    """
    decoder = _stack(architecture.decoder, architecture.d_model, kind)
    for group in decoder.groups:
        group.convolution.is_causal = True
    if kind == BYTENET:
        is_bytenet = kind_of(architecture.encoder) == BYTENET
        factor = BYTENET_LENGTH_FACTOR if is_bytenet else 1
        decoder.groups[0].unfolding.CopyFrom(Unfolding(length_factor=factor))
        architecture.target_embeddings.ClearField("positions")
    else:
        for group in _seconds(decoder):
            group.alignment_attention.CopyFrom(alignment)
    architecture.decoder.CopyFrom(decoder)


def add_experts(
    architecture: Architecture, num_experts: int, num_selected: int, d_feed_forward: int
) -> None:
    """Put mixtures of experts in place of feed-forward networks.

    In a convolutional stack, the last of every two layers, and of all, gets one. Recurrent stacks
    stay as they are.
    """
    expert = FeedForward(d_feed_forward=d_feed_forward, activation=ACTIVATION_RELU, has_bias=True)
    part = MixtureOfExperts(num_experts=num_experts, num_selected=num_selected, expert=expert)
    for stack in (architecture.encoder, architecture.decoder):
        groups = _seconds(stack) if kind_of(stack) else stack.groups
        for group in groups:
            if group.HasField("feed_forward") or group.HasField("convolution"):
                group.mixture_of_experts.CopyFrom(part)


def kind_of(stack: Stack) -> str:
    """The kind of a convolutional stack; "" for another stack."""
    part = stack.groups[0].convolution
    if not part.steps:
        return ""
    if not part.steps[0].is_separable:
        return BYTENET
    return SLICENET if len(part.steps) == len(_SLICENET_KERNELS) else XCEPTION


def _seconds(stack: Stack) -> list[LayerGroup]:
    """The last of every two layers, and the last one of all."""
    groups = list(stack.groups)
    return groups[1::2] + groups[-1:] * (len(groups) % 2)


def _bytenet(number: int, d_model: int) -> list[ConvolutionStep]:
    """A residual block for layers of 2d channels, of which inner layers have d (section 3.6)."""
    if d_model % 2:
        raise ValueError(f"d_model ({d_model}) must be even for {BYTENET}")
    dilation = 2 ** (number % _NUM_DILATIONS)
    inner = d_model // 2
    return [
        ConvolutionStep(kernel_size=1, d_output=inner),
        ConvolutionStep(kernel_size=3, dilation=dilation, d_output=inner),
        ConvolutionStep(kernel_size=1),
    ]


def _slicenet(number: int, _: int) -> list[ConvolutionStep]:
    """Half of a module, which has kernels of two sizes (section 2.2)."""
    size = _SLICENET_KERNELS[number % len(_SLICENET_KERNELS)]
    return [ConvolutionStep(kernel_size=size, is_separable=True) for _ in range(2)]


def _xception(_: int, __: int) -> list[ConvolutionStep]:
    """A module of the middle flow."""
    return [ConvolutionStep(kernel_size=3, is_separable=True) for _ in range(3)]


CONVOLUTIONS: dict[str, Callable[[int, int], list[ConvolutionStep]]] = {
    BYTENET: _bytenet,
    SLICENET: _slicenet,
    XCEPTION: _xception,
}
"""The convolutions of a layer by kind, given its number and the width of the network."""


def _stack(replaced: Stack, d_model: int, kind: str) -> Stack:
    """A stack with the norms and the number of layers of ``replaced``, without attention."""
    stack = Stack()
    stack.CopyFrom(replaced)
    del stack.groups[:]
    for number in range(replaced.groups[0].num_layers):
        part = Convolution(steps=CONVOLUTIONS[kind](number, d_model), activation=ACTIVATION_RELU)
        stack.groups.append(LayerGroup(num_layers=1, convolution=part))
    return stack
