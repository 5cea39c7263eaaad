"""The projection of tokens in checkpoints of ColBERT (``HF_ColBERT``)."""

from attendant_export.importers.checkpoint import Checkpoint

HF_COLBERT = "HF_ColBERT"
HF_PROJECTION = "linear"
"""The layer that projects hidden states."""


def has_projection(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is of ColBERT and has the weights of the projection."""
    classes = checkpoint.config.get("architectures")
    is_stated = isinstance(classes, list) and HF_COLBERT in classes
    return is_stated and f"{HF_PROJECTION}.weight" in checkpoint.weights.shapes
