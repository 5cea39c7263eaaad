"""MPNet checkpoints (Song et al., 2020), as ``transformers`` writes them."""

from attendant.v1.architecture_pb2 import ACTIVATION_GELU, RelativePositions

from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.imported import ImportedEncoder, load_encoder
from attendant_export.importers.post_norm_encoder import (
    FieldNames,
    add_head,
    learned_embeddings,
    post_norm_encoder,
)
from attendant_export.importers.roberta import (
    HEAD,
    HEAD_WEIGHTS,
    REPEATED_WEIGHTS,
    first_position,
)
from attendant_export.importers.weight_names import WeightTable

NUM_BUCKETS, MAX_DISTANCE = 32, 128

LAYER = "encoder.layer.{layer}"
WEIGHTS = WeightTable(
    names={
        "embedding": "embeddings.word_embeddings",
        "position_embedding": "embeddings.position_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "relative_positions": "encoder.relative_attention_bias",
        "encoder.{layer}.self_attention.query_key_value": [
            f"{LAYER}.attention.attn.{each}" for each in ("q", "k", "v")
        ],
        "encoder.{layer}.self_attention.output": f"{LAYER}.attention.attn.o",
        "encoder.{layer}.self_attention_residual.norm": f"{LAYER}.attention.LayerNorm",
        "encoder.{layer}.feed_forward.0": f"{LAYER}.intermediate.dense",
        "encoder.{layer}.feed_forward.2": f"{LAYER}.output.dense",
        "encoder.{layer}.feed_forward_residual.norm": f"{LAYER}.output.LayerNorm",
        **HEAD_WEIGHTS,
    },
    ignored=(
        r"(mpnet\.)?embeddings\.position_ids",
        r"(mpnet\.)?pooler\.dense\.(weight|bias)",
        r"lm_head\.decoder\.bias",
    ),
    repeated=REPEATED_WEIGHTS,
    prefixes=("", "mpnet."),
)


def read_mpnet(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of an MPNet checkpoint; raises CheckpointError."""
    config = checkpoint.config
    # The original has these numbers in its code, whatever the configuration says.
    config.require(pad_token_id=1, relative_attention_num_buckets=NUM_BUCKETS)
    architecture = post_norm_encoder(
        config,
        learned_embeddings(config, offset=first_position(checkpoint)),
        config.number("layer_norm_eps", default=1e-12),
        FieldNames(),
    )
    architecture.encoder.relative_positions.CopyFrom(
        RelativePositions(num_buckets=NUM_BUCKETS, max_distance=MAX_DISTANCE)
    )
    if HEAD in checkpoint.weights.shapes:
        add_head(architecture, ACTIVATION_GELU)
    return load_encoder("mpnet", architecture, checkpoint, WEIGHTS)
