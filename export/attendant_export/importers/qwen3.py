"""Qwen3 checkpoints (Yang et al., 2025) as embedding models, such as those of Qwen3-Embedding."""

from attendant.v1.architecture_pb2 import NORM_POSITION_PRE, Attention

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.decoder_shaped import (
    LAYER,
    load_decoder_shaped,
    read_architecture,
    read_attention,
)
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.layer_types import GLOBAL, LOCAL, read_layer_types, read_theta
from attendant_export.importers.post_norm_encoder import FieldNames

FIELDS = FieldNames(default_activation="silu")
NORMS = {"encoder.{layer}.feed_forward_residual.norm": f"{LAYER}.post_attention_layernorm"}


def read_qwen3(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of a Qwen3 checkpoint; raises CheckpointError."""
    config = checkpoint.config
    config.require(rope_scaling=None, is_causal=True, use_bidirectional_attention=False)
    attention = read_attention(config, read_theta(config, "rope_theta", 10_000.0), 128)
    attentions, types = {GLOBAL: attention, LOCAL: Attention()}, _layer_types(config)
    if LOCAL in types:
        attentions[LOCAL].CopyFrom(attention)
        # The window of the configuration counts the token itself.
        attentions[LOCAL].window = config.integer("sliding_window", minimum=2) - 1
    architecture = read_architecture(config, types, attentions, FIELDS)
    architecture.encoder.norm_position = NORM_POSITION_PRE
    return load_decoder_shaped("qwen3", architecture, checkpoint, NORMS)


def _layer_types(config: Config) -> list[str]:
    """The types of layers by ``layer_types`` or ``max_window_layers``."""
    num_layers = config.num_layers(FIELDS.num_layers)
    has_window = config.flag("use_sliding_window", default=False)
    types = read_layer_types(config, num_layers)
    if types is None:
        num_global = num_layers
        if has_window:
            num_global = config.integer("max_window_layers", default=28, minimum=0)
        return [LOCAL if i >= num_global else GLOBAL for i in range(num_layers)]
    if LOCAL in types and not has_window:
        raise CheckpointError(
            f"{config.path}: use_sliding_window is False, but layer_types has {LOCAL}"
        )
    return list(types)
