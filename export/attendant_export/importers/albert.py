"""ALBERT checkpoints (Lan et al., 2020), as ``transformers`` writes them."""

from attendant.v1.architecture_pb2 import Architecture, LayerGroup

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.imported import ImportedEncoder, load_encoder
from attendant_export.importers.post_norm_encoder import (
    FieldNames,
    add_head,
    learned_embeddings,
    post_norm_encoder,
    read_activation,
)
from attendant_export.importers.weight_names import WeightTable

FIELDS = FieldNames(default_activation="gelu_new")
HEAD = "predictions.dense.weight"
"""A tensor that only checkpoints with a masked-language-model head have."""

WEIGHTS = {
    "embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "segment_embedding": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "embedding_projection": "encoder.embedding_hidden_mapping_in",
    "mask_head.dense": "predictions.dense",
    "mask_head.norm": "predictions.LayerNorm",
    "mask_head": "predictions",
}
LAYER_WEIGHTS = {
    "self_attention.query_key_value": [f"attention.{each}" for each in ("query", "key", "value")],
    "self_attention.output": ["attention.dense"],
    "self_attention_residual.norm": ["attention.LayerNorm"],
    "feed_forward.0": ["ffn"],
    "feed_forward.2": ["ffn_output"],
    "feed_forward_residual.norm": ["full_layer_layer_norm"],
}


def read_albert(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of an ALBERT checkpoint; raises CheckpointError."""
    config = checkpoint.config
    config.require(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    num_token_types = config.integer("type_vocab_size", default=2)
    norm_epsilon = config.number("layer_norm_eps", default=1e-12)
    embeddings = learned_embeddings(config, num_token_types)
    embeddings.d_embedding = config.integer("embedding_size", default=128)
    architecture = post_norm_encoder(config, embeddings, norm_epsilon, FIELDS)
    _share_layers(architecture, config)
    if HEAD in checkpoint.weights.shapes:
        add_head(architecture, read_activation(config, FIELDS))
    return load_encoder("albert", architecture, checkpoint, _weight_table(architecture))


def _share_layers(architecture: Architecture, config: Config) -> None:
    """Replace the layers by groups of layers that run several times.

    The configuration counts the runs of groups, not the layers, as ``num_hidden_layers``.
    """
    num_runs = config.num_layers(FIELDS.num_layers)
    num_groups = config.integer("num_hidden_groups", default=1)
    if num_groups > num_runs:
        raise CheckpointError(
            f"{config.path}: num_hidden_groups is {num_groups}, want at most {FIELDS.num_layers}, "
            f"which is {num_runs}"
        )
    (layers,) = architecture.encoder.groups
    layers.num_layers = config.num_layers("inner_group_num", default=1)
    # In floating point as in the original, since rounding decides at the bounds of groups.
    runs = [int(i / (num_runs / num_groups)) for i in range(num_runs)]
    groups = [LayerGroup(num_repeats=runs.count(number)) for number in range(num_groups)]
    for group in groups:
        group.MergeFrom(layers)
    del architecture.encoder.groups[:]
    architecture.encoder.groups.extend(groups)


def _weight_table(architecture: Architecture) -> WeightTable:
    names: dict[str, str | list[str]] = {**WEIGHTS}
    layer = 0
    for number, group in enumerate(architecture.encoder.groups):
        for inner in range(group.num_layers):
            theirs = f"encoder.albert_layer_groups.{number}.albert_layers.{inner}"
            for name, modules in LAYER_WEIGHTS.items():
                names[f"encoder.{layer}.{name}"] = [f"{theirs}.{each}" for each in modules]
            layer += 1
    return WeightTable(
        names=names,
        ignored=(
            r"(albert\.)?embeddings\.(position|token_type)_ids",
            r"(albert\.)?pooler\.(weight|bias)",
            r"predictions\.decoder\.bias",
            r"sop_classifier\.classifier\.(weight|bias)",
        ),
        repeated={"predictions.decoder.weight": "embedding.weight"},
        prefixes=("", "albert."),
    )
