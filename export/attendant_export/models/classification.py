"""Heads that score the labels of a text."""

from typing import cast

from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.embedding_pb2 import POOLING_CLS, POOLING_MEAN
from torch import Tensor, nn

from attendant_export.models.norm import layer_norm
from attendant_export.models.text_vectors import POOLINGS, Pooling, dense_layer, pool
from attendant_export.models.unsupported import check_at_least_one, unsupported


class ClassificationHead(nn.Module):
    """A pooling, a linear layer with an activation, an optional norm, and a linear layer."""

    def __init__(
        self,
        part: architecture_pb2.ClassificationHead,
        architecture: Architecture,
        dropout: float = 0.0,
    ) -> None:
        """Raises ValueError that names an unsupported field of ``part``."""
        super().__init__()
        check_at_least_one(part, "num_labels")
        self.pooling = head_pooling(part)
        width = part.transform.d_output
        self.transform = dense_layer(part.transform, architecture.d_model)
        self.norm = layer_norm(architecture.encoder, width) if part.has_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, part.num_labels)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states (batch, length, d_model) to scores (batch, num_labels).

        ``mask`` (batch, length) is that of `pool`.
        """
        pooled = self.transform(pool(hidden, mask, self.pooling))
        return cast(Tensor, self.output(self.dropout(self.norm(pooled))))


def head_pooling(part: architecture_pb2.ClassificationHead) -> Pooling:
    """The pooling of a head. Raises ValueError for one that heads do not have."""
    if part.pooling not in (POOLING_CLS, POOLING_MEAN):
        raise unsupported(part, "pooling")
    return POOLINGS[part.pooling]


def check_classification(architecture: Architecture) -> None:
    """Raise ValueError for other parts that a classification head does not go with."""
    vectors = architecture.text_vectors
    if architecture.HasField("classification_head") and (
        vectors.dense_layers or vectors.excludes_prompt
    ):
        raise ValueError(
            "Architecture.classification_head: does not go with dense layers or poolings without "
            "the prompt"
        )
