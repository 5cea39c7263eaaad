"""ELECTRA checkpoints (Clark et al., 2020), as ``transformers`` writes them.

The encoder is that of BERT, with embeddings that may be narrower. A generator has a
masked-language-model head. The head of a discriminator, which detects replaced tokens, is left
out.
"""

from attendant.v1.architecture_pb2 import ACTIVATION_GELU

from attendant_export.importers.bert import ENCODER_WEIGHTS, FIELDS, bert_encoder
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.imported import ImportedEncoder, load_encoder
from attendant_export.importers.post_norm_encoder import add_head
from attendant_export.importers.weight_names import WeightTable

HEAD = "generator_predictions.dense.weight"
"""A tensor that only checkpoints with a masked-language-model head have."""
WEIGHTS = WeightTable(
    names={
        **ENCODER_WEIGHTS,
        "embedding_projection": "embeddings_project",
        "mask_head.dense": "generator_predictions.dense",
        "mask_head.norm": "generator_predictions.LayerNorm",
        "mask_head": "generator_lm_head",
    },
    ignored=(
        r"(electra\.)?embeddings\.(position|token_type)_ids",
        r"discriminator_predictions\.dense(_prediction)?\.(weight|bias)",
    ),
    repeated={"generator_lm_head.weight": "embedding.weight"},
    prefixes=("", "electra."),
)


def read_electra(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of an ELECTRA checkpoint; raises CheckpointError."""
    config = checkpoint.config
    architecture = bert_encoder(config)
    width = config.integer("embedding_size", default=128)
    if width != config.integer(FIELDS.width):  # else there is no projection
        architecture.source_embeddings.d_embedding = width
    if HEAD in checkpoint.weights.shapes:
        # The activation of the head does not depend on the configuration.
        add_head(architecture, ACTIVATION_GELU)
    return load_encoder("electra", architecture, checkpoint, WEIGHTS)
