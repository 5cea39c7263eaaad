"""The models' configurations as descriptions of networks, for manifests."""

from math import sqrt

from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_RELU,
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    POSITION_KIND_LEARNED,
    POSITION_KIND_SINUSOIDAL_HALVED,
    Activation,
    Architecture,
    Attention,
    Embeddings,
    FeedForward,
    Head,
    LayerGroup,
    Positions,
    Stack,
)

from attendant_export.models.bert import BertConfig
from attendant_export.models.transformer import TransformerConfig

NORM_EPSILON = 1e-5
"""PyTorch's default, which both models use."""


def transformer_architecture(config: TransformerConfig) -> Architecture:
    """The encoder-decoder Transformer of these sizes."""
    embeddings = Embeddings(
        vocab_size=config.vocab_size,
        scale=sqrt(config.d_model),
        positions=Positions(kind=POSITION_KIND_SINUSOIDAL_HALVED),
    )
    encoder = _stack(config, config.num_encoder_layers, ACTIVATION_RELU)
    decoder = _stack(config, config.num_decoder_layers, ACTIVATION_RELU)
    layers = decoder.groups[0]
    layers.cross_attention.CopyFrom(layers.self_attention)
    layers.self_attention.is_causal = True
    return Architecture(
        d_model=config.d_model,
        source_embeddings=embeddings,
        target_embeddings=embeddings,
        shares_embeddings=True,
        encoder=encoder,
        decoder=decoder,
        head=Head(is_tied=True),
    )


def bert_architecture(config: BertConfig) -> Architecture:
    """The BERT of these sizes, with its masked-language-model head."""
    return Architecture(
        d_model=config.d_model,
        source_embeddings=Embeddings(
            vocab_size=config.vocab_size,
            positions=Positions(kind=POSITION_KIND_LEARNED, num_positions=config.max_positions),
            num_token_types=config.num_segments,
            has_norm=True,
        ),
        encoder=_stack(config.block, config.num_layers, ACTIVATION_GELU),
        head=Head(is_tied=True, has_bias=True, transform=ACTIVATION_GELU),
    )


def _stack(config: TransformerConfig, num_layers: int, activation: Activation.ValueType) -> Stack:
    layers = LayerGroup(
        num_layers=num_layers,
        self_attention=Attention(
            num_heads=config.num_heads, head_dim=config.head_dim, has_bias=True
        ),
        feed_forward=FeedForward(d_feed_forward=config.d_ff, activation=activation, has_bias=True),
    )
    return Stack(
        groups=[layers],
        norm_position=NORM_POSITION_PRE if config.norm_first else NORM_POSITION_POST,
        norm_epsilon=NORM_EPSILON,
        has_final_norm=config.norm_first,
    )
