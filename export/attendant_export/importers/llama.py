"""Checkpoints with the network of Llama (Touvron et al., 2023): Llama, Mistral, Qwen2, SmolLM."""

from attendant.v1.architecture_pb2 import NORM_POSITION_PRE, Architecture, Head

from attendant_export.importers.adapted_weights import WithZeros
from attendant_export.importers.checkpoint import Checkpoint, Config
from attendant_export.importers.decoder_shaped import (
    LAYER,
    decoder_weights,
    read_architecture,
    read_attention,
)
from attendant_export.importers.language_model import (
    ImportedLanguageModel,
    check_is_decoder,
    load_language_model,
)
from attendant_export.importers.layer_types import GLOBAL, read_theta
from attendant_export.importers.post_norm_encoder import FieldNames, head_dim
from attendant_export.importers.weight_names import Weights, WeightTable

FIELDS = FieldNames(default_activation="silu")
NORMS = {"decoder.{layer}.feed_forward_residual.norm": f"{LAYER}.post_attention_layernorm"}
MISTRAL_WINDOW = 4096
"""The window of a Mistral configuration that does not state one."""


def read_llama(checkpoint: Checkpoint) -> ImportedLanguageModel:
    """The model of a Llama checkpoint; raises CheckpointError."""
    return _read("llama", checkpoint, checkpoint.weights, longest=None)


def read_mistral(checkpoint: Checkpoint) -> ImportedLanguageModel:
    """The model of a Mistral checkpoint, for texts within its window; raises CheckpointError."""
    config = checkpoint.config
    window = None
    if "sliding_window" in config or "sliding_window" not in config.names:
        window = config.integer("sliding_window", default=MISTRAL_WINDOW)
    return _read("mistral", checkpoint, checkpoint.weights, window)


def read_qwen2(checkpoint: Checkpoint) -> ImportedLanguageModel:
    """The model of a Qwen2 checkpoint, for texts within its window; raises CheckpointError."""
    config = checkpoint.config
    has_window = config.flag("use_sliding_window", default=False)
    window = config.integer("sliding_window", default=4096) if has_window else None
    # Queries, keys and values have biases, and the output has none.
    width = (config.integer(FIELDS.width),)
    prefix = "model." if "model.norm.weight" in checkpoint.weights.shapes else ""
    layers = range(config.num_layers(FIELDS.num_layers))
    names = [f"{prefix}layers.{layer}.self_attn.o_proj.bias" for layer in layers]
    weights = WithZeros(checkpoint.weights, dict.fromkeys(names, width))
    return _read("qwen2", checkpoint, weights, window, has_bias=True)


def _read(
    family: str,
    checkpoint: Checkpoint,
    weights: Weights,
    longest: int | None,
    has_bias: bool = False,
) -> ImportedLanguageModel:
    """``longest`` is the window of attention; shorter texts are not affected by it."""
    config = checkpoint.config
    check_is_decoder(config, {"rope_scaling": None, "pretraining_tp": 1})
    limits = [config.integer("max_position_embeddings"), *([longest] if longest else [])]
    architecture = read_network(config, has_bias)
    table = WeightTable(
        names={**decoder_weights(architecture), **NORMS, "head.projection": "lm_head"},
        ignored=(r".*rotary_emb\.inv_freq",),
        repeated={"lm_head.weight": "target_embedding.weight"} if _is_tied(config) else {},
        prefixes=("", "model."),
    )
    return load_language_model(family, architecture, checkpoint, table, weights, min(limits))


def read_network(config: Config, has_bias: bool = False) -> Architecture:
    """The network of a configuration; raises CheckpointError that names a bad field.

    With ``has_bias``, projections of attention have biases whatever the configuration states.
    """
    attention = read_attention(
        *(config, read_theta(config, "rope_theta", 10_000.0), head_dim_of(config)),
        has_head_norms=False,
        default_key_value_heads=config.integer(FIELDS.num_heads),
    )
    attention.has_bias |= has_bias
    types = [GLOBAL] * config.num_layers(FIELDS.num_layers)
    read = read_architecture(config, types, {GLOBAL: attention}, FIELDS)
    network = Architecture(
        d_model=read.d_model,
        target_embeddings=read.source_embeddings,
        decoder=read.encoder,
        head=Head(is_tied=_is_tied(config)),
    )
    network.decoder.norm_position = NORM_POSITION_PRE
    has_mlp_bias = config.flag("mlp_bias", default=False)
    network.decoder.groups[0].feed_forward.has_bias = has_mlp_bias
    return network


def head_dim_of(config: Config) -> int:
    """The width of a head: stated, or that of the hidden states divided by the heads."""
    stated = "head_dim" in config
    return config.integer("head_dim") if stated else head_dim(config, FIELDS)


def _is_tied(config: Config) -> bool:
    return config.flag("tie_word_embeddings", default=False)
