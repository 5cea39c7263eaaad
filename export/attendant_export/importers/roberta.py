"""RoBERTa checkpoints (Liu et al., 2019) and those of XLM-RoBERTa and CamemBERT."""

from attendant.v1.architecture_pb2 import ACTIVATION_GELU

from attendant_export.importers.bert import ENCODER_WEIGHTS, bert_encoder
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.imported import ImportedEncoder, load_encoder
from attendant_export.importers.post_norm_encoder import add_head
from attendant_export.importers.special_tokens import special_token_id
from attendant_export.importers.weight_names import WeightTable

HEAD = "lm_head.dense.weight"
"""A tensor that only checkpoints with a masked-language-model head have."""
HEAD_WEIGHTS = {
    "mask_head.dense": "lm_head.dense",
    "mask_head.norm": "lm_head.layer_norm",
    "mask_head": "lm_head",
}
REPEATED_WEIGHTS = {"lm_head.decoder.weight": "embedding.weight"}

WEIGHTS = WeightTable(
    names={**ENCODER_WEIGHTS, **HEAD_WEIGHTS},
    ignored=(
        r"(roberta\.)?embeddings\.(position|token_type)_ids",
        r"(roberta\.)?pooler\.dense\.(weight|bias)",
        r"lm_head\.decoder\.bias",
    ),
    repeated=REPEATED_WEIGHTS,
    prefixes=("", "roberta."),
)


def read_roberta(checkpoint: Checkpoint) -> ImportedEncoder:
    """The model of a RoBERTa checkpoint; raises CheckpointError."""
    architecture = bert_encoder(checkpoint.config, first_position(checkpoint))
    if HEAD in checkpoint.weights.shapes:
        # The activation of the head does not depend on the configuration.
        add_head(architecture, ACTIVATION_GELU)
    family = checkpoint.config.get("model_type")
    return load_encoder(family, architecture, checkpoint, WEIGHTS)


def first_position(checkpoint: Checkpoint) -> int:
    """The row of the first token in the table of positions: positions are counted from padding."""
    config = checkpoint.config
    pad_id = config.integer("pad_token_id", default=1, minimum=0)
    if pad_id != (token_id := special_token_id(checkpoint, "pad")):
        raise CheckpointError(
            f"{config.path}: pad_token_id is {pad_id}, but the tokenizer's padding is {token_id}"
        )
    return pad_id + 1
