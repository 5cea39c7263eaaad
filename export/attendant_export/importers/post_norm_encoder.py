"""Architectures of post-norm encoders, which families describe with different field names."""

from dataclasses import dataclass
from typing import TypeAlias

from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import (
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_RELU,
    ACTIVATION_SILU,
    NORM_POSITION_POST,
    POSITION_KIND_LEARNED,
    Architecture,
    Attention,
    Embeddings,
    FeedForward,
    Head,
    LayerGroup,
    Positions,
    Stack,
)

from attendant_export.importers.checkpoint import CheckpointError, Config

ActivationNumber: TypeAlias = architecture_pb2.Activation.ValueType

ACTIVATIONS = {
    "gelu": ACTIVATION_GELU,
    "gelu_python": ACTIVATION_GELU,
    "gelu_new": ACTIVATION_GELU_TANH,
    "gelu_fast": ACTIVATION_GELU_TANH,
    "gelu_pytorch_tanh": ACTIVATION_GELU_TANH,
    "relu": ACTIVATION_RELU,
    "silu": ACTIVATION_SILU,
    "swish": ACTIVATION_SILU,
}


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Names of the fields of a configuration, and the activation by default."""

    width: str = "hidden_size"
    num_heads: str = "num_attention_heads"
    num_layers: str = "num_hidden_layers"
    d_feed_forward: str = "intermediate_size"
    activation: str = "hidden_act"
    default_activation: str = "gelu"


def post_norm_encoder(
    config: Config, embeddings: Embeddings, norm_epsilon: float, fields: FieldNames
) -> Architecture:
    """The architecture of an encoder without a head; raises CheckpointError for a bad field."""
    layers = LayerGroup(
        num_layers=config.num_layers(fields.num_layers),
        self_attention=Attention(
            num_heads=config.integer(fields.num_heads),
            head_dim=head_dim(config, fields),
            has_bias=True,
        ),
        feed_forward=FeedForward(
            d_feed_forward=config.integer(fields.d_feed_forward),
            activation=read_activation(config, fields),
            has_bias=True,
        ),
    )
    return Architecture(
        d_model=config.integer(fields.width),
        source_embeddings=embeddings,
        encoder=Stack(groups=[layers], norm_position=NORM_POSITION_POST, norm_epsilon=norm_epsilon),
    )


def head_dim(config: Config, fields: FieldNames) -> int:
    """The width of a head of attention; raises CheckpointError if it is no integer."""
    width, num_heads = config.integer(fields.width), config.integer(fields.num_heads)
    if width % num_heads:
        raise CheckpointError(
            f"{config.path}: {fields.width} {width} is not a multiple of {fields.num_heads} "
            f"{num_heads}"
        )
    return width // num_heads


def read_activation(config: Config, fields: FieldNames) -> ActivationNumber:
    """The activation of the feed-forward layers."""
    default = fields.default_activation
    return config.choice(fields.activation, ACTIVATIONS, default=default)  # type: ignore[no-any-return]


def learned_embeddings(config: Config, num_token_types: int = 0, offset: int = 0) -> Embeddings:
    """Embeddings with a norm and learned positions, the first of which is ``offset``."""
    num_positions = config.integer("max_position_embeddings")
    if num_positions <= offset:
        raise CheckpointError(
            f"{config.path}: max_position_embeddings is {num_positions}, want more than {offset}, "
            "the first position"
        )
    return Embeddings(
        vocab_size=config.integer("vocab_size"),
        positions=Positions(kind=POSITION_KIND_LEARNED, num_positions=num_positions, offset=offset),
        num_token_types=num_token_types,
        has_norm=True,
    )


def add_head(architecture: Architecture, transform: ActivationNumber) -> None:
    """Add a masked-language-model head, whose projection is the embedding table."""
    architecture.head.CopyFrom(Head(is_tied=True, has_bias=True, transform=transform))
