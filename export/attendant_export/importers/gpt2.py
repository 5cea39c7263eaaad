"""GPT-2 checkpoints (Radford et al., 2019)."""

from attendant.v1.architecture_pb2 import (
    NORM_POSITION_PRE,
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

from attendant_export.importers.adapted_weights import Transposed
from attendant_export.importers.checkpoint import Checkpoint, Config
from attendant_export.importers.language_model import (
    ImportedLanguageModel,
    check_is_decoder,
    load_language_model,
)
from attendant_export.importers.post_norm_encoder import FieldNames, head_dim, read_activation
from attendant_export.importers.weight_names import WeightTable

FIELDS = FieldNames(*("n_embd", "n_head", "n_layer", "n_inner", "activation_function", "gelu_new"))
LAYER = "h.{layer}"
WEIGHTS = {
    "target_embedding": "wte",
    "target_position_embedding": "wpe",
    "decoder.{layer}.self_attention_residual.norm": f"{LAYER}.ln_1",
    "decoder.{layer}.self_attention.query_key_value": f"{LAYER}.attn.c_attn",
    "decoder.{layer}.self_attention.output": f"{LAYER}.attn.c_proj",
    "decoder.{layer}.feed_forward_residual.norm": f"{LAYER}.ln_2",
    "decoder.{layer}.feed_forward.0": f"{LAYER}.mlp.c_fc",
    "decoder.{layer}.feed_forward.2": f"{LAYER}.mlp.c_proj",
    "decoder_norm": "ln_f",
    "head.projection": "lm_head",
}
LINEAR = r".*h\.\d+\.(attn|mlp)\.c_\w+\.weight"
"""Weights of linear layers, which the checkpoint stores as (inputs, outputs)."""


def read_gpt2(checkpoint: Checkpoint) -> ImportedLanguageModel:
    """The model of a GPT-2 checkpoint; raises CheckpointError."""
    config = checkpoint.config
    check_is_decoder(config, {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False})
    is_tied = config.flag("tie_word_embeddings", default=True)
    table = WeightTable(
        names=WEIGHTS,
        ignored=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),  # masks
        repeated={"lm_head.weight": "target_embedding.weight"} if is_tied else {},
        prefixes=("", "transformer."),
    )
    weights = Transposed(checkpoint.weights, LINEAR)
    return load_language_model("gpt2", read_network(config, is_tied), checkpoint, table, weights)


def read_network(config: Config, is_tied: bool) -> Architecture:
    """The network of a configuration; raises CheckpointError that names a bad field."""
    width = config.integer(FIELDS.width)
    layers = LayerGroup(
        num_layers=config.num_layers(FIELDS.num_layers),
        self_attention=Attention(
            num_heads=config.integer(FIELDS.num_heads),
            head_dim=head_dim(config, FIELDS),
            has_bias=True,
            is_causal=True,
        ),
        feed_forward=FeedForward(
            d_feed_forward=config.integer(FIELDS.d_feed_forward, default=4 * width),
            activation=read_activation(config, FIELDS),
            has_bias=True,
        ),
    )
    num_positions = config.integer("n_positions", default=1024)
    return Architecture(
        d_model=width,
        target_embeddings=Embeddings(
            vocab_size=config.integer("vocab_size"),
            positions=Positions(kind=POSITION_KIND_LEARNED, num_positions=num_positions),
        ),
        decoder=Stack(
            groups=[layers],
            norm_position=NORM_POSITION_PRE,
            norm_epsilon=config.number("layer_norm_epsilon", default=1e-5),
            has_final_norm=True,
        ),
        head=Head(is_tied=is_tied),
    )
