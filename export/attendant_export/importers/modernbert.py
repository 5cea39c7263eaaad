"""ModernBERT checkpoints (Warner et al., 2024), such as those of Granite embeddings."""

from itertools import groupby

from attendant.v1.architecture_pb2 import (
    NORM_KIND_LAYER_WITHOUT_BIAS,
    NORM_KIND_UNSPECIFIED,
    NORM_POSITION_PRE,
    Architecture,
    Attention,
    Embeddings,
    FeedForward,
    LayerGroup,
    RotaryPositions,
    Stack,
)

from attendant_export.importers.checkpoint import Checkpoint, Config
from attendant_export.importers.classification import has_classification_head
from attendant_export.importers.imported import ImportedEncoder, load_encoder
from attendant_export.importers.layer_types import (
    GLOBAL,
    LOCAL,
    read_spaced_layer_types,
    read_theta_of_type,
)
from attendant_export.importers.post_norm_encoder import (
    FieldNames,
    add_head,
    head_dim,
    read_activation,
)
from attendant_export.importers.weight_names import WeightTable

FIELDS = FieldNames(activation="hidden_activation")
HEAD_FIELDS = FieldNames(activation="classifier_activation")
HEAD = "head.dense.weight"
"""A tensor of the heads of masked language models and of classification."""
OLD_THETAS = {GLOBAL: "global_rope_theta", LOCAL: "local_rope_theta"}
DEFAULT_THETAS = {GLOBAL: 160_000.0, LOCAL: 10_000.0}

LAYER = "layers.{layer}"
WEIGHTS = WeightTable(
    names={
        "embedding": "embeddings.tok_embeddings",
        "embedding_norm": "embeddings.norm",
        "encoder.{layer}.self_attention_residual.norm": f"{LAYER}.attn_norm",
        "encoder.{layer}.self_attention.query_key_value": f"{LAYER}.attn.Wqkv",
        "encoder.{layer}.self_attention.output": f"{LAYER}.attn.Wo",
        "encoder.{layer}.feed_forward_residual.norm": f"{LAYER}.mlp_norm",
        "encoder.{layer}.feed_forward.0": f"{LAYER}.mlp.Wi",
        "encoder.{layer}.feed_forward.2": f"{LAYER}.mlp.Wo",
        "encoder_norm": "final_norm",
        "mask_head.dense": "head.dense",
        "mask_head.norm": "head.norm",
    },
    whole_names={"mask_head.bias": "decoder.bias"},
    repeated={"decoder.weight": "embedding.weight"},
    prefixes=("", "model."),
)


def read_modernbert(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of a ModernBERT checkpoint; raises CheckpointError."""
    config = checkpoint.config
    config.require(rope_scaling=None, is_decoder=False)
    has_norm_bias = config.flag("norm_bias", default=False)
    stack = Stack(
        groups=_groups(config),
        norm_position=NORM_POSITION_PRE,
        norm_epsilon=config.number("norm_eps", default=1e-5),
        norm_kind=NORM_KIND_UNSPECIFIED if has_norm_bias else NORM_KIND_LAYER_WITHOUT_BIAS,
        has_final_norm=True,
    )
    architecture = Architecture(
        d_model=config.integer(FIELDS.width),
        source_embeddings=Embeddings(vocab_size=config.integer("vocab_size"), has_norm=True),
        encoder=stack,
    )
    if HEAD in checkpoint.weights.shapes and not has_classification_head(checkpoint):
        add_head(architecture, read_activation(config, HEAD_FIELDS))
        head = architecture.head
        head.has_bias = config.flag("decoder_bias", default=True)
        head.transform_lacks_bias = not config.flag("classifier_bias", default=False)
    longest = config.integer("max_position_embeddings", default=8192)
    return load_encoder("modernbert", architecture, checkpoint, WEIGHTS, longest)


def _groups(config: Config) -> list[LayerGroup]:
    """Layers with local and with global attention. The first attention follows no norm."""
    num_layers = config.num_layers(FIELDS.num_layers)
    types = read_spaced_layer_types(config, num_layers, "global_attn_every_n_layers", 3, 0)
    parts = {each: _layers(config, each) for each in set(types)}
    runs = [(types[0], 1), *((each, len(list(run))) for each, run in groupby(types[1:]))]
    groups = [LayerGroup(num_layers=count) for _, count in runs]
    for group, (layer_type, _) in zip(groups, runs, strict=True):
        group.MergeFrom(parts[layer_type])
    groups[0].lacks_mixer_norm = True
    return groups


def _layers(config: Config, layer_type: str) -> LayerGroup:
    old_field, default = OLD_THETAS[layer_type], DEFAULT_THETAS[layer_type]
    theta = read_theta_of_type(config, layer_type, old_field, default)
    attention = Attention(
        num_heads=config.integer(FIELDS.num_heads),
        head_dim=head_dim(config, FIELDS),
        has_bias=config.flag("attention_bias", default=False),
        rotary_positions=RotaryPositions(theta=theta),
    )
    if layer_type == LOCAL:
        # The window of the configuration counts both sides.
        attention.window = config.integer("local_attention", default=128, minimum=2) // 2
        config.require(sliding_window=attention.window)
    return LayerGroup(
        self_attention=attention,
        feed_forward=FeedForward(
            d_feed_forward=config.integer(FIELDS.d_feed_forward),
            activation=read_activation(config, FIELDS),
            has_bias=config.flag("mlp_bias", default=False),
            is_gated=True,
        ),
    )
