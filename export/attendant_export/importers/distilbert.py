"""DistilBERT checkpoints (Sanh et al., 2019), as ``transformers`` writes them."""

from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.imported import ImportedEncoder, load_encoder
from attendant_export.importers.post_norm_encoder import (
    FieldNames,
    add_head,
    learned_embeddings,
    post_norm_encoder,
    read_activation,
)
from attendant_export.importers.weight_names import WeightTable

FIELDS = FieldNames(
    width="dim",
    num_heads="n_heads",
    num_layers="n_layers",
    d_feed_forward="hidden_dim",
    activation="activation",
)
NORM_EPSILON = 1e-12
HEAD = "vocab_transform.weight"
"""A tensor that only checkpoints with a masked-language-model head have."""

LAYER = "transformer.layer.{layer}"
WEIGHTS = WeightTable(
    names={
        "embedding": "embeddings.word_embeddings",
        "position_embedding": "embeddings.position_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "encoder.{layer}.self_attention.query_key_value": [
            f"{LAYER}.attention.{each}" for each in ("q_lin", "k_lin", "v_lin")
        ],
        "encoder.{layer}.self_attention.output": f"{LAYER}.attention.out_lin",
        "encoder.{layer}.self_attention_residual.norm": f"{LAYER}.sa_layer_norm",
        "encoder.{layer}.feed_forward.0": f"{LAYER}.ffn.lin1",
        "encoder.{layer}.feed_forward.2": f"{LAYER}.ffn.lin2",
        "encoder.{layer}.feed_forward_residual.norm": f"{LAYER}.output_layer_norm",
        "mask_head.dense": "vocab_transform",
        "mask_head.norm": "vocab_layer_norm",
        "mask_head": "vocab_projector",
    },
    ignored=(r"(distilbert\.)?embeddings\.position_ids",),
    repeated={"vocab_projector.weight": "embedding.weight"},
    prefixes=("", "distilbert."),
)


def read_distilbert(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of a DistilBERT checkpoint; raises CheckpointError."""
    config = checkpoint.config
    config.require(sinusoidal_pos_embds=False)
    architecture = post_norm_encoder(config, learned_embeddings(config), NORM_EPSILON, FIELDS)
    if HEAD in checkpoint.weights.shapes:
        config.require(tie_weights_=True)
        add_head(architecture, read_activation(config, FIELDS))
    return load_encoder("distilbert", architecture, checkpoint, WEIGHTS)
