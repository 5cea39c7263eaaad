"""Hypothesis strategies for random recurrent networks and alignment functions."""

from attendant.v1.architecture_pb2 import (
    NORM_POSITION_NONE,
    NORM_POSITION_PRE,
    AlignmentAttention,
    AlignmentWindow,
    Architecture,
    LayerGroup,
    Recurrent,
    Stack,
)
from attendant_export.models.alignment_attention import FUNCTIONS
from attendant_export.models.shapes import CELLS
from hypothesis import strategies as st

from tests.support import architectures as some

WIDTHS = (8, 20, 32)
cells = st.sampled_from(list(CELLS.values()))
alignments = st.builds(
    AlignmentAttention,
    function=st.sampled_from(FUNCTIONS),
    window=st.none()
    | st.builds(AlignmentWindow, half_width=st.integers(1, 6), is_predictive=st.booleans()),
)


@st.composite
def _layers(draw: st.DrawFn, starts: bool, attends: bool | None) -> LayerGroup:
    """Recurrent layers; those of a decoder have or lack attention, an encoder's has None."""
    is_encoder = attends is None
    has_heads = bool(attends) and draw(st.booleans())
    return LayerGroup(
        num_layers=draw(st.integers(1, 2)),
        num_repeats=draw(st.integers(0, 2)) if is_encoder else 0,
        recurrent=Recurrent(
            cell=draw(cells),
            is_bidirectional=is_encoder and draw(st.booleans()),
            starts_from_source=starts,
        ),
        cross_attention=draw(some.attentions(is_cached=True)) if has_heads else None,
        alignment_attention=draw(alignments) if attends and not has_heads else None,
        feed_forward=draw(st.none() | some.feed_forwards()),
    )


@st.composite
def _stacks(draw: st.DrawFn, groups: st.SearchStrategy[list[LayerGroup]]) -> Stack:
    return Stack(
        groups=draw(groups),
        norm_position=draw(st.sampled_from([NORM_POSITION_NONE, NORM_POSITION_PRE])),
        norm_epsilon=1e-5,
        has_final_norm=draw(st.booleans()),
        norm_kind=draw(some.norm_kinds),
    )


@st.composite
def recurrent_translators(draw: st.DrawFn) -> Architecture:
    """Encoder-decoders with a recurrent decoder, whose encoder is recurrent or has attention."""
    d_model, starts = draw(st.sampled_from(WIDTHS)), draw(st.booleans())
    source, target = draw(some.embeddings(d_model)), draw(some.embeddings(d_model))
    shares_embeddings = draw(st.booleans())
    if shares_embeddings:
        target.vocab_size = source.vocab_size
    encoders = _stacks(st.lists(_layers(False, None), min_size=1, max_size=2))
    last = _layers(starts, True) if not starts else _layers(starts, draw(st.booleans()))
    groups = st.tuples(st.booleans(), _layers(starts, False), last).map(
        lambda drawn: [drawn[1], drawn[2]] if drawn[0] else [drawn[2]]
    )
    return Architecture(
        d_model=d_model,
        source_embeddings=source,
        target_embeddings=target,
        shares_embeddings=shares_embeddings,
        encoder=draw(encoders | some.stacks()),
        decoder=draw(_stacks(groups)),
        head=draw(some.heads()),
    )
