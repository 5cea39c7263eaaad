"""BERT checkpoints (Devlin et al., 2019), as ``transformers`` writes them."""

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

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.special_tokens import encoder_tokens
from attendant_export.importers.weight_names import WeightTable
from attendant_export.models.encoder import Encoder

FAMILY = "bert"
ACTIVATIONS = {
    "gelu": ACTIVATION_GELU,
    "gelu_python": ACTIVATION_GELU,
    "gelu_new": ACTIVATION_GELU_TANH,
    "gelu_pytorch_tanh": ACTIVATION_GELU_TANH,
    "relu": ACTIVATION_RELU,
    "silu": ACTIVATION_SILU,
    "swish": ACTIVATION_SILU,
}
HEAD = "cls.predictions.transform.dense.weight"
"""A tensor that only checkpoints with a masked-language-model head have."""

LAYER = "encoder.layer.{layer}"
WEIGHTS = WeightTable(
    names={
        "embedding": "embeddings.word_embeddings",
        "position_embedding": "embeddings.position_embeddings",
        "segment_embedding": "embeddings.token_type_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "encoder.{layer}.self_attention.query_key_value": [
            f"{LAYER}.attention.self.{each}" for each in ("query", "key", "value")
        ],
        "encoder.{layer}.self_attention.output": f"{LAYER}.attention.output.dense",
        "encoder.{layer}.self_attention_residual.norm": f"{LAYER}.attention.output.LayerNorm",
        "encoder.{layer}.feed_forward.0": f"{LAYER}.intermediate.dense",
        "encoder.{layer}.feed_forward.2": f"{LAYER}.output.dense",
        "encoder.{layer}.feed_forward_residual.norm": f"{LAYER}.output.LayerNorm",
        "mask_head.dense": "cls.predictions.transform.dense",
        "mask_head.norm": "cls.predictions.transform.LayerNorm",
        "mask_head": "cls.predictions",
    },
    ignored=(
        r"(bert\.)?embeddings\.position_ids",
        r"(bert\.)?pooler\.dense\.(weight|bias)",
        r"cls\.predictions\.decoder\.(weight|bias)",
        r"cls\.seq_relationship\.(weight|bias)",
    ),
    prefixes=("", "bert."),
)


def read_bert(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of a BERT checkpoint; raises CheckpointError."""
    architecture = _architecture(checkpoint.config, HEAD in checkpoint.weights.shapes)
    model = Encoder(architecture, encoder_tokens(checkpoint)).eval()
    WEIGHTS.load(model, checkpoint.weights)
    max_tokens = architecture.source_embeddings.positions.num_positions
    return ImportedEncoder(FAMILY, model, max_tokens)


def _architecture(config: Config, has_head: bool) -> Architecture:
    config.require(
        position_embedding_type="absolute",
        is_decoder=False,
        add_cross_attention=False,
        tie_word_embeddings=True,
    )
    width, num_heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    if width % num_heads:
        raise CheckpointError(
            f"{config.path}: hidden_size {width} is not a multiple of num_attention_heads "
            f"{num_heads}"
        )
    activation = config.choice("hidden_act", ACTIVATIONS, default="gelu")
    layers = LayerGroup(
        num_layers=config.integer("num_hidden_layers"),
        self_attention=Attention(num_heads=num_heads, head_dim=width // num_heads, has_bias=True),
        feed_forward=FeedForward(
            d_feed_forward=config.integer("intermediate_size"),
            activation=activation,
            has_bias=True,
        ),
    )
    architecture = Architecture(
        d_model=width,
        source_embeddings=Embeddings(
            vocab_size=config.integer("vocab_size"),
            positions=Positions(
                kind=POSITION_KIND_LEARNED,
                num_positions=config.integer("max_position_embeddings"),
            ),
            num_token_types=config.integer("type_vocab_size", default=2),
            has_norm=True,
        ),
        encoder=Stack(
            groups=[layers],
            norm_position=NORM_POSITION_POST,
            norm_epsilon=config.number("layer_norm_eps", default=1e-12),
        ),
    )
    if has_head:
        architecture.head.CopyFrom(Head(is_tied=True, has_bias=True, transform=activation))
    return architecture
