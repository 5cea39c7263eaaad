"""BGE-M3 (Chen et al., 2024): an XLM-RoBERTa folder of sentence-transformers with further heads.

The linear layers of these heads are in files of their own. Vectors of tokens for late interaction
are imported beside those of whole texts.
"""

import torch
from attendant.v1.architecture_pb2 import Dense, TextVectors

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Weights
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.weight_names import WeightTable
from attendant_export.models.text_vectors import DenseLayers

FAMILY = "xlm-roberta"
COLBERT, SPARSE = "colbert_linear.pt", "sparse_linear.pt"
LAYER = WeightTable(names={}, whole_names={f"0.linear.{each}": each for each in ("weight", "bias")})


def is_bge_m3(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint has the layer that makes vectors of tokens."""
    return checkpoint.config.get("model_type") == FAMILY and checkpoint.has(COLBERT)


def with_bge_m3_vectors(encoder: ImportedEncoder, checkpoint: Checkpoint) -> ImportedEncoder:
    """``encoder`` with vectors of tokens beside those of texts; raises CheckpointError."""
    checkpoint.has(SPARSE)  # Asks a hub for it, so that it is named as left out.
    model = encoder.model
    model.token_dense = read_bge_m3_dense(checkpoint, model.architecture.d_model)
    model.architecture.token_vectors.dense_layers.extend(model.token_dense.part.dense_layers)
    return encoder


def read_bge_m3_dense(checkpoint: Checkpoint, d_model: int) -> DenseLayers:
    """The layer of vectors of tokens; raises CheckpointError."""
    path = checkpoint.path(COLBERT)
    weights = Weights([path])
    shape = weights.shapes.get("weight", ())
    if len(shape) != 2 or not shape[0]:
        raise CheckpointError(f"{path}: want a matrix as weight, with at least one row")
    rows = shape[0]
    part = TextVectors(dense_layers=[Dense(d_output=rows, has_bias=True)])
    with torch.device("meta"):
        layers = DenseLayers(part, d_model)
    try:
        LAYER.load(layers, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return layers
