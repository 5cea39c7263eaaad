"""Gemma 3 checkpoints of text (Gemma Team, 2025) as embedding models, such as EmbeddingGemma."""

from attendant.v1.architecture_pb2 import NORM_POSITION_SANDWICH, Attention
from torch import nn

from attendant_export.importers.checkpoint import Checkpoint, Config
from attendant_export.importers.decoder_shaped import (
    LAYER,
    load_decoder_shaped,
    read_architecture,
    read_attention,
)
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.layer_types import (
    GLOBAL,
    LOCAL,
    read_spaced_layer_types,
    read_theta_of_type,
)
from attendant_export.importers.post_norm_encoder import FieldNames

FIELDS = FieldNames(activation="hidden_activation", default_activation="gelu_pytorch_tanh")
THETAS = {GLOBAL: ("rope_theta", 1_000_000.0), LOCAL: ("rope_local_base_freq", 10_000.0)}
"""The older field of the base of rotary positions and its default, by type of layers."""
NORMS = {
    "encoder.{layer}.self_attention_residual.output_norm": f"{LAYER}.post_attention_layernorm",
    "encoder.{layer}.feed_forward_residual.norm": f"{LAYER}.pre_feedforward_layernorm",
    "encoder.{layer}.feed_forward_residual.output_norm": f"{LAYER}.post_feedforward_layernorm",
}


def read_gemma3(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of a Gemma 3 checkpoint; raises CheckpointError."""
    config = checkpoint.config
    config.require(rope_scaling=None, attn_logit_softcapping=None, is_causal=True)
    attentions = {each: _attention(config, each) for each in THETAS}
    num_layers = config.num_layers(FIELDS.num_layers)
    types = read_spaced_layer_types(config, num_layers, "sliding_window_pattern", 6, -1)
    architecture = read_architecture(config, types, attentions, FIELDS)
    architecture.source_embeddings.scale = architecture.d_model**0.5
    architecture.encoder.norm_position = NORM_POSITION_SANDWICH
    encoder = load_decoder_shaped("gemma3_text", architecture, checkpoint, NORMS)
    for module in encoder.model.modules():
        if isinstance(module, nn.RMSNorm):  # The factors are stored as differences from 1.
            module.weight = nn.Parameter(1 + module.weight)
    return encoder


def _attention(config: Config, layer_type: str) -> Attention:
    theta = read_theta_of_type(config, layer_type, *THETAS[layer_type])
    attention = read_attention(config, theta, default_head_dim=256)
    attention.scale = config.number("query_pre_attn_scalar", default=256) ** -0.5
    is_bidirectional = config.flag("use_bidirectional_attention", default=False)
    attention.is_causal = not is_bidirectional
    if layer_type == LOCAL:
        # The window of the configuration counts the token itself and, if there are any, both sides.
        width = config.integer("sliding_window", default=4096, minimum=2)
        attention.window = width // 2 if is_bidirectional else width - 1
    return attention
