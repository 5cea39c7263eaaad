"""The architectures of the networks that the exporter trains."""

from math import sqrt

from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    ALIGNMENT_FUNCTION_ADDITIVE,
    ALIGNMENT_FUNCTION_DOT,
    ALIGNMENT_FUNCTION_GENERAL,
    ALIGNMENT_FUNCTION_SCALED_DOT,
    NORM_KIND_RMS,
    NORM_POSITION_NONE,
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    POSITION_KIND_LEARNED,
    POSITION_KIND_SINUSOIDAL_HALVED,
    RECURRENT_CELL_GRU,
    RECURRENT_CELL_LSTM,
    Activation,
    AlignmentAttention,
    Architecture,
    Attention,
    Embeddings,
    FeedForward,
    Head,
    LayerGroup,
    Positions,
    Recurrent,
    RecurrentCell,
    RotaryPositions,
    Stack,
)

NORM_EPSILON = 1e-5
ROTARY_THETA = 10_000.0
CELLS = {"lstm": RECURRENT_CELL_LSTM, "gru": RECURRENT_CELL_GRU}
ALIGNMENT_FUNCTIONS = {
    "dot": ALIGNMENT_FUNCTION_DOT,
    "scaled-dot": ALIGNMENT_FUNCTION_SCALED_DOT,
    "general": ALIGNMENT_FUNCTION_GENERAL,
    "additive": ALIGNMENT_FUNCTION_ADDITIVE,
}


def transformer(
    vocab_size: int,
    d_model: int = 256,
    num_heads: int = 8,
    d_feed_forward: int = 1024,
    num_encoder_layers: int = 6,
    num_decoder_layers: int = 2,
    norm_first: bool = True,
    shares_embeddings: bool = True,
) -> Architecture:
    """An encoder-decoder with one embedding for source, target and output.

    Without ``shares_embeddings``, the source has an embedding of its own.

    A deep encoder with a shallow decoder is the fastest to decode. ``norm_first`` selects pre-norm;
    "Attention Is All You Need" is post-norm. Raises ValueError if ``d_model`` is not a multiple of
    2 * ``num_heads``.
    """
    _check_heads(d_model, num_heads, multiple=2)
    embeddings = Embeddings(
        vocab_size=vocab_size,
        scale=sqrt(d_model),
        positions=Positions(kind=POSITION_KIND_SINUSOIDAL_HALVED),
    )
    layers = _layers(d_model, num_heads, d_feed_forward, ACTIVATION_RELU)
    decoder = _stack(layers, num_decoder_layers, norm_first)
    decoder.groups[0].cross_attention.CopyFrom(layers.self_attention)
    decoder.groups[0].self_attention.is_causal = True
    return Architecture(
        d_model=d_model,
        source_embeddings=embeddings,
        target_embeddings=embeddings,
        shares_embeddings=shares_embeddings,
        encoder=_stack(layers, num_encoder_layers, norm_first),
        decoder=decoder,
        head=Head(is_tied=True),
    )


def make_encoder_recurrent(architecture: Architecture, cell: RecurrentCell.ValueType) -> None:
    """Replace the layers of an encoder by as many bidirectional recurrent ones.

    They need no positions, and have neither norms nor feed-forward networks.
    """
    layers = LayerGroup(
        num_layers=architecture.encoder.groups[0].num_layers,
        recurrent=Recurrent(cell=cell, is_bidirectional=True),
    )
    architecture.encoder.CopyFrom(Stack(groups=[layers], norm_position=NORM_POSITION_NONE))
    architecture.source_embeddings.ClearField("positions")


def make_decoder_recurrent(
    architecture: Architecture,
    cell: RecurrentCell.ValueType,
    alignment: AlignmentAttention | None,
) -> None:
    """Replace the layers of a decoder by as many recurrent ones, as `make_encoder_recurrent`.

    They begin with the encoder's final state. The last layer attends to the source by ``alignment``
    (Luong et al., 2015); without one, the final state is all that the decoder knows of it
    (Sutskever et al., 2014; Cho et al., 2014).
    """
    num_layers = architecture.decoder.groups[0].num_layers
    recurrent = Recurrent(cell=cell, starts_from_source=True)
    groups = [LayerGroup(num_layers=num_layers - 1, recurrent=recurrent)] if num_layers > 1 else []
    last = LayerGroup(num_layers=1, recurrent=recurrent, alignment_attention=alignment)
    stack = Stack(groups=[*groups, last], norm_position=NORM_POSITION_NONE)
    architecture.decoder.CopyFrom(stack)
    architecture.target_embeddings.ClearField("positions")


def bert(
    vocab_size: int,
    d_model: int = 256,
    num_heads: int = 4,
    d_feed_forward: int = 1024,
    num_layers: int = 6,
    max_positions: int = 512,
    num_segments: int = 2,
    norm_first: bool = False,
) -> Architecture:
    """A BERT with its masked-language-model head.

    ``norm_first`` selects pre-norm; the original BERT is post-norm. Raises ValueError if d_model
    is not a multiple of ``num_heads``.
    """
    _check_heads(d_model, num_heads, multiple=1)
    layers = _layers(d_model, num_heads, d_feed_forward, ACTIVATION_GELU)
    return Architecture(
        d_model=d_model,
        source_embeddings=Embeddings(
            vocab_size=vocab_size,
            positions=Positions(kind=POSITION_KIND_LEARNED, num_positions=max_positions),
            num_token_types=num_segments,
            has_norm=True,
        ),
        encoder=_stack(layers, num_layers, norm_first),
        head=Head(is_tied=True, has_bias=True, transform=ACTIVATION_GELU),
    )


def language_model(
    vocab_size: int,
    d_model: int = 256,
    num_heads: int = 4,
    num_key_value_heads: int = 0,
    d_feed_forward: int = 688,
    num_layers: int = 6,
) -> Architecture:
    """A causal language model of the parts of Llama (Touvron et al., 2023), with a tied head.

    ``num_key_value_heads`` is a divisor of ``num_heads``; 0 means ``num_heads``. Raises ValueError
    if ``d_model`` is not a multiple of 2 * ``num_heads``, whose pairs of channels are rotated.
    """
    _check_heads(d_model, num_heads, multiple=2)
    layers = LayerGroup(
        self_attention=Attention(
            num_heads=num_heads,
            head_dim=d_model // num_heads,
            is_causal=True,
            rotary_positions=RotaryPositions(theta=ROTARY_THETA),
            num_key_value_heads=num_key_value_heads,
        ),
        feed_forward=FeedForward(
            d_feed_forward=d_feed_forward, activation=ACTIVATION_SILU, is_gated=True
        ),
    )
    decoder = _stack(layers, num_layers, norm_first=True)
    decoder.norm_kind = NORM_KIND_RMS
    return Architecture(
        d_model=d_model,
        target_embeddings=Embeddings(vocab_size=vocab_size),
        decoder=decoder,
        head=Head(is_tied=True),
    )


def with_vocab_size(
    architecture: Architecture, vocab_size: int, target_vocab_size: int | None = None
) -> Architecture:
    """The same network with another vocabulary size; by default, both sides have the same."""
    changed = Architecture()
    changed.CopyFrom(architecture)
    if changed.HasField("source_embeddings"):
        changed.source_embeddings.vocab_size = vocab_size
    if changed.HasField("target_embeddings"):
        changed.target_embeddings.vocab_size = target_vocab_size or vocab_size
    return changed


def _check_heads(d_model: int, num_heads: int, multiple: int) -> None:
    if num_heads < 1 or d_model < 1:
        raise ValueError(f"d_model ({d_model}) and num_heads ({num_heads}) must be at least 1")
    if d_model % (multiple * num_heads):
        factor = f"{multiple} * num_heads" if multiple > 1 else "num_heads"
        raise ValueError(f"d_model ({d_model}) must be a multiple of {factor} ({num_heads})")


def _layers(
    d_model: int, num_heads: int, d_feed_forward: int, activation: Activation.ValueType
) -> LayerGroup:
    return LayerGroup(
        self_attention=Attention(num_heads=num_heads, head_dim=d_model // num_heads, has_bias=True),
        feed_forward=FeedForward(
            d_feed_forward=d_feed_forward, activation=activation, has_bias=True
        ),
    )


def _stack(layers: LayerGroup, num_layers: int, norm_first: bool) -> Stack:
    stack = Stack(
        groups=[layers],
        norm_position=NORM_POSITION_PRE if norm_first else NORM_POSITION_POST,
        norm_epsilon=NORM_EPSILON,
        # The residual stream of pre-norm is unnormalized at the top; that of post-norm is not.
        has_final_norm=norm_first,
    )
    stack.groups[0].num_layers = num_layers
    return stack
