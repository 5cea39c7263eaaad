"""Hypothesis strategies for random networks and their parts."""

from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    ACTIVATION_TANH,
    NORM_KIND_LAYER_WITHOUT_BIAS,
    NORM_KIND_RMS,
    NORM_KIND_UNSPECIFIED,
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    NORM_POSITION_SANDWICH,
    POSITION_KIND_LEARNED,
    POSITION_KIND_UNSPECIFIED,
    Architecture,
    Attention,
    Dense,
    Embeddings,
    FeedForward,
    Head,
    LayerGroup,
    Positions,
    RelativePositions,
    Ssru,
    Stack,
    TextVectors,
)
from attendant.v1.embedding_pb2 import (
    POOLING_LAST,
    POOLING_MEAN_SQRT_LENGTH,
    POOLING_WEIGHTED_MEAN,
)
from attendant_export.models.embeddings import SINUSOIDS
from hypothesis import settings
from hypothesis import strategies as st

from tests.support.graphs import MAX_LENGTH

THOROUGH = "thorough"
"""The Hypothesis profile of ``make test-all``."""
random_parts = settings(
    deadline=None,
    max_examples=300 if settings.get_current_profile_name() == THOROUGH else 12,
)
"""Number of random networks per test."""
fewer_random_parts = settings(
    random_parts, max_examples=300 if settings.get_current_profile_name() == THOROUGH else 6
)
"""The same for a test that takes long for each network."""

ACTIVATIONS = (ACTIVATION_RELU, ACTIVATION_GELU, ACTIVATION_GELU_TANH, ACTIVATION_SILU)
norm_kinds = st.sampled_from([NORM_KIND_UNSPECIFIED, NORM_KIND_RMS, NORM_KIND_LAYER_WITHOUT_BIAS])
WIDTHS = (8, 15, 20, 32)
"""Widths of hidden states. Sinusoids need an even width."""
EPSILONS = st.sampled_from([1e-12, 1e-6, 1e-5, 0.1])


def factors(*values: float) -> st.SearchStrategy[float]:
    """No factor, or one of the given values."""
    return st.sampled_from([0.0, *values])


@st.composite
def attentions(
    draw: st.DrawFn, is_causal: bool = False, is_cached: bool = False, is_free: bool = False
) -> Attention:
    """Heads of any width. Those with a cache have widths that its kernel supports.

    Only self-attention that ``is_free``, of an encoder or of a language model, has rotary
    positions, grouped heads and norms of heads, and local attention without a cache.
    """
    part = Attention(
        num_heads=draw(st.integers(1, 4)),
        head_dim=draw(st.sampled_from([8, 16, 24] if is_cached else [1, 3, 8, 10])),
        has_bias=draw(st.booleans()),
        scale=draw(factors(0.1, 0.4)),
        is_causal=is_causal,
    )
    if is_free:
        part.window = 0 if is_cached else draw(st.integers(0, 4))
        divisors = [count for count in range(1, part.num_heads) if part.num_heads % count == 0]
        part.num_key_value_heads = draw(st.sampled_from([0, part.num_heads, *divisors]))
        if draw(st.booleans()):
            part.query_key_norm.epsilon = draw(EPSILONS)
        if part.head_dim % (16 if is_cached else 2) == 0 and draw(st.booleans()):
            part.rotary_positions.theta = draw(st.sampled_from([1.0, 50.0, 10_000.0]))
    return part


def encoder_attentions(is_local: bool = True) -> st.SearchStrategy[Attention]:
    """Self-attention of an encoder, which may be causal, and local if ``is_local`` allows it."""
    parts = st.booleans().flatmap(lambda is_causal: attentions(is_causal, is_free=True))
    return parts if is_local else parts.filter(lambda part: not part.window)


def feed_forwards() -> st.SearchStrategy[FeedForward]:
    return st.builds(
        FeedForward,
        d_feed_forward=st.sampled_from([4, 13, 48]),
        activation=st.sampled_from(ACTIVATIONS),
        has_bias=st.booleans(),
        is_gated=st.booleans(),
    )


def positions(d_model: int) -> st.SearchStrategy[Positions]:
    """Positions for texts of at least `MAX_LENGTH` tokens."""
    kinds = [POSITION_KIND_UNSPECIFIED, POSITION_KIND_LEARNED]
    if d_model % 2 == 0:
        kinds += SINUSOIDS
    return st.builds(
        lambda kind, offset, more: Positions(
            kind=kind, num_positions=offset + MAX_LENGTH + more, offset=offset
        ),
        st.sampled_from(kinds),
        st.integers(0, 3),
        st.integers(0, 5),
    )


@st.composite
def embeddings(draw: st.DrawFn, d_model: int, is_alone: bool = False) -> Embeddings:
    """Only those of an encoder that is alone may have a width of their own."""
    d_embedding = draw(st.sampled_from([0, *WIDTHS])) if is_alone else 0
    return Embeddings(
        vocab_size=draw(st.integers(12, 40)),
        scale=draw(factors(1.0, d_model**0.5)),
        positions=draw(positions(d_embedding or d_model)),
        num_token_types=draw(st.integers(0, 2)),
        has_norm=draw(st.booleans()),
        d_embedding=d_embedding,
    )


def relative_positions() -> st.SearchStrategy[RelativePositions]:
    """Few buckets and short distances, so that `MAX_LENGTH` tokens reach the last bucket."""
    return st.builds(
        lambda exact, more, is_unidirectional: RelativePositions(
            num_buckets=(2 if is_unidirectional else 4) * exact,
            max_distance=exact + more,
            is_unidirectional=is_unidirectional,
        ),
        st.integers(1, 4),
        st.integers(1, 12),
        st.booleans(),
    )


@st.composite
def layer_groups(draw: st.DrawFn, is_decoder: bool, has_memory: bool) -> LayerGroup:
    """Layers with self-attention or, in a decoder with ``has_memory`` only, with an SSRU."""
    is_causal = is_decoder or draw(st.booleans())
    has_ssru = has_memory and draw(st.booleans())
    return LayerGroup(
        num_layers=draw(st.integers(1, 2)),
        self_attention=None
        if has_ssru
        else draw(attentions(is_causal, is_cached=is_decoder, is_free=not has_memory)),
        ssru=Ssru() if has_ssru else None,
        cross_attention=draw(attentions(is_cached=True)) if has_memory else None,
        feed_forward=draw(feed_forwards()),
        num_repeats=0 if is_decoder else draw(st.integers(0, 3)),
    )


@st.composite
def stacks(draw: st.DrawFn, is_decoder: bool = False, has_memory: bool = False) -> Stack:
    """1 to 3 layers in 1 or 2 groups. A decoder with ``has_memory`` attends to an encoder."""
    groups = draw(st.lists(layer_groups(is_decoder, has_memory), min_size=1, max_size=2))
    if len(groups) == 2:
        groups[1].num_layers = 1
    attending = [group.self_attention for group in groups if group.HasField("self_attention")]
    positions = [NORM_POSITION_PRE, NORM_POSITION_POST, NORM_POSITION_SANDWICH]
    norm_position = draw(st.sampled_from(positions))
    groups[0].lacks_mixer_norm = norm_position == NORM_POSITION_PRE and draw(st.booleans())
    relative = draw(st.none() | relative_positions()) if attending else None
    if relative is not None:
        for attention in attending:
            attention.window = 0
            if attention.num_heads != attending[0].num_heads:
                attention.num_heads, attention.num_key_value_heads = attending[0].num_heads, 0
    return Stack(
        groups=groups,
        norm_position=norm_position,
        norm_epsilon=draw(EPSILONS),
        has_final_norm=draw(st.booleans()),
        relative_positions=relative,
        norm_kind=draw(norm_kinds),
    )


def heads(needs_transform: bool = False) -> st.SearchStrategy[Head]:
    return st.builds(
        Head,
        is_tied=st.booleans(),
        has_bias=st.booleans(),
        scale=factors(0.3, 1.5),
        transform_lacks_bias=st.booleans(),
        transform=st.sampled_from(ACTIVATIONS if needs_transform else [0, *ACTIVATIONS]),
    )


DENSE_LAYERS = st.builds(
    Dense,
    d_output=st.sampled_from([3, 16]),
    has_bias=st.booleans(),
    activation=st.sampled_from([0, *ACTIVATIONS]),
)


def text_vectors() -> st.SearchStrategy[TextVectors]:
    dense = st.builds(
        Dense,
        d_output=st.sampled_from([1, 5, 24]),
        has_bias=st.booleans(),
        activation=st.sampled_from([0, ACTIVATION_TANH, *ACTIVATIONS]),
    )
    additional = (POOLING_LAST, POOLING_WEIGHTED_MEAN, POOLING_MEAN_SQRT_LENGTH)
    return st.builds(
        TextVectors,
        additional_poolings=st.lists(st.sampled_from(additional), unique=True),
        dense_layers=st.lists(dense, max_size=2),
        excludes_prompt=st.booleans(),
        excluded_token_id=st.none() | st.integers(0, 3),
    )


@st.composite
def encoders(draw: st.DrawFn) -> Architecture:
    """Encoders, also without layers."""
    d_model = draw(st.sampled_from(WIDTHS))
    source = draw(embeddings(d_model, is_alone=True))
    return Architecture(
        d_model=d_model,
        source_embeddings=source,
        encoder=draw(stacks() | st.builds(Stack, norm_epsilon=EPSILONS)),
        head=draw(heads(needs_transform=source.d_embedding not in (0, d_model))),
        text_vectors=TextVectors(excluded_token_id=draw(st.none() | st.integers(0, 11))),
    )


@st.composite
def encoder_decoders(draw: st.DrawFn) -> Architecture:
    d_model = draw(st.sampled_from(WIDTHS))
    source, target = draw(embeddings(d_model)), draw(embeddings(d_model))
    shares_embeddings = draw(st.booleans())
    if shares_embeddings:
        target.vocab_size = source.vocab_size
    return Architecture(
        d_model=d_model,
        source_embeddings=source,
        target_embeddings=target,
        shares_embeddings=shares_embeddings,
        encoder=draw(stacks()),
        decoder=draw(stacks(is_decoder=True, has_memory=True)),
        head=draw(heads()),
    )


@st.composite
def language_models(draw: st.DrawFn) -> Architecture:
    d_model = draw(st.sampled_from(WIDTHS))
    return Architecture(
        d_model=d_model,
        target_embeddings=draw(embeddings(d_model)),
        decoder=draw(stacks(is_decoder=True)),
        head=draw(heads()),
    )
