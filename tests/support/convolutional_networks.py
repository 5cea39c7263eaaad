"""Hypothesis strategies for random convolutional networks, unfoldings and mixtures of experts."""

from attendant.v1.architecture_pb2 import (
    NORM_POSITION_NONE,
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    Architecture,
    Convolution,
    ConvolutionStep,
    LayerGroup,
    MixtureOfExperts,
    Stack,
    Unfolding,
)
from hypothesis import strategies as st

from tests.support import architectures as some
from tests.support.recurrent_networks import WIDTHS, alignments

NORMS = [NORM_POSITION_NONE, NORM_POSITION_PRE, NORM_POSITION_POST]
READS = ("heads", "alignment", "unfolding", "")
"""What a layer of a decoder reads the source with."""
steps = st.builds(
    ConvolutionStep,
    kernel_size=st.sampled_from([1, 2, 3, 5]),
    dilation=st.integers(0, 3),
    is_separable=st.booleans(),
    d_output=st.sampled_from([0, 6, 16]),
)
experts = st.builds(
    lambda number, fewer, expert: MixtureOfExperts(
        num_experts=number, num_selected=max(1, number - fewer), expert=expert
    ),
    *(st.integers(2, 5), st.integers(1, 4), some.feed_forwards()),
)


@st.composite
def convolutions(draw: st.DrawFn, is_decoder: bool) -> Convolution:
    drawn = draw(st.lists(steps, min_size=1, max_size=3))
    drawn[-1].d_output = 0
    if is_decoder and all(step.kernel_size == 1 for step in drawn):
        drawn[0].kernel_size = 3
    is_causal = is_decoder or draw(st.booleans())
    activation = draw(st.sampled_from(some.ACTIVATIONS))
    return Convolution(steps=drawn, activation=activation, is_causal=is_causal)


@st.composite
def _layers(draw: st.DrawFn, reads: str | None) -> LayerGroup:
    """Layers of a decoder, or with None those of an encoder."""
    mixer = draw(st.none() | some.feed_forwards() | experts)
    return LayerGroup(
        num_layers=draw(st.integers(1, 2)),
        num_repeats=draw(st.integers(0, 2)) if reads is None else 0,
        convolution=draw(convolutions(is_decoder=reads is not None)),
        cross_attention=draw(some.attentions(is_cached=True)) if reads == "heads" else None,
        alignment_attention=draw(alignments) if reads == "alignment" else None,
        unfolding=Unfolding(length_factor=1) if reads == "unfolding" else None,
        feed_forward=None if isinstance(mixer, MixtureOfExperts) else mixer,
        mixture_of_experts=mixer if isinstance(mixer, MixtureOfExperts) else None,
    )


@st.composite
def _stack(draw: st.DrawFn, groups: list[LayerGroup]) -> Stack:
    return Stack(
        groups=groups,
        norm_position=draw(st.sampled_from(NORMS)),
        norm_epsilon=1e-5,
        has_final_norm=draw(st.booleans()),
        norm_kind=draw(some.norm_kinds),
    )


@st.composite
def convolutional_translators(draw: st.DrawFn) -> Architecture:
    """Encoder-decoders with convolutions and mixtures of experts in either stack or in both.

    A stack without convolutions is one of a Transformer. With convolutions alone in both, the
    encoder may have outputs after the tokens of a source.
    """
    d_model = draw(st.sampled_from(WIDTHS))
    source, target = draw(some.embeddings(d_model)), draw(some.embeddings(d_model))
    shares_embeddings = draw(st.booleans())
    if shares_embeddings:
        target.vocab_size = source.vocab_size
    kinds = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    reads = draw(st.lists(st.sampled_from(READS), max_size=1)) + [draw(st.sampled_from(READS[:3]))]
    encoder = draw(some.stacks())
    if kinds[0]:
        number = draw(st.integers(1, 2))
        encoder = draw(_stack([draw(_layers(None)) for _ in range(number)]))
    decoder = draw(some.stacks(is_decoder=True, has_memory=True))
    if kinds[1]:
        decoder = draw(_stack([draw(_layers(each)) for each in reads]))
        if kinds[0] and {*reads} <= {"unfolding", ""}:
            source.ClearField("positions")
            for group in decoder.groups:
                if group.HasField("unfolding"):
                    group.unfolding.length_factor = 3 - len(reads) + 1
    return Architecture(
        d_model=d_model,
        source_embeddings=source,
        target_embeddings=target,
        shares_embeddings=shares_embeddings,
        encoder=encoder,
        decoder=decoder,
        head=draw(some.heads()),
    )
