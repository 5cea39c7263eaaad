"""BERT checkpoints (Devlin et al., 2019), as ``transformers`` writes them."""

from attendant.v1.architecture_pb2 import Architecture

from attendant_export.importers.checkpoint import Checkpoint, Config
from attendant_export.importers.imported import ImportedEncoder, load_encoder
from attendant_export.importers.post_norm_encoder import (
    FieldNames,
    add_head,
    learned_embeddings,
    post_norm_encoder,
    read_activation,
)
from attendant_export.importers.weight_names import WeightTable

FIELDS = FieldNames()
HEAD = "cls.predictions.transform.dense.weight"
"""A tensor that only checkpoints with a masked-language-model head have."""

LAYER = "encoder.layer.{layer}"
ENCODER_WEIGHTS = {
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
}
WEIGHTS = WeightTable(
    names={
        **ENCODER_WEIGHTS,
        "mask_head.dense": "cls.predictions.transform.dense",
        "mask_head.norm": "cls.predictions.transform.LayerNorm",
        "mask_head": "cls.predictions",
    },
    ignored=(
        r"(bert\.)?embeddings\.position_ids",
        r"(bert\.)?pooler\.dense\.(weight|bias)",
        r"cls\.predictions\.decoder\.bias",
        r"cls\.seq_relationship\.(weight|bias)",
    ),
    repeated={"cls.predictions.decoder.weight": "embedding.weight"},
    prefixes=("", "bert."),
)


def read_bert(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of a BERT checkpoint; raises CheckpointError."""
    config = checkpoint.config
    architecture = bert_encoder(config)
    if HEAD in checkpoint.weights.shapes:
        add_head(architecture, read_activation(config, FIELDS))
    return load_encoder("bert", architecture, checkpoint, WEIGHTS)


def bert_encoder(config: Config, first_position: int = 0) -> Architecture:
    """The architecture of an encoder whose configuration has BERT's fields."""
    config.require(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    num_token_types = config.integer("type_vocab_size", default=2)
    embeddings = learned_embeddings(config, num_token_types, first_position)
    norm_epsilon = config.number("layer_norm_eps", default=1e-12)
    return post_norm_encoder(config, embeddings, norm_epsilon, FIELDS)
