"""Heads: projections of hidden states to vocabulary scores."""

import torch
import torch.nn.functional as F
from attendant.v1 import architecture_pb2
from torch import Tensor, nn

from attendant_export.models.embeddings import STD, embedding_width
from attendant_export.models.feed_forward import Activation
from attendant_export.models.norm import layer_norm
from attendant_export.models.unsupported import unsupported


class Head(nn.Module):
    """Projection to the vocabulary, tied or separate, after the optional masked-LM transform."""

    def __init__(
        self,
        part: architecture_pb2.Head,
        d_model: int,
        embeddings: architecture_pb2.Embeddings,
        stack: architecture_pb2.Stack,
    ) -> None:
        """``stack`` writes the hidden states. The head scores the tokens of ``embeddings``."""
        super().__init__()
        width, vocab_size = embedding_width(embeddings, d_model), embeddings.vocab_size
        if width != d_model and not part.transform:
            raise unsupported(embeddings, "d_embedding", "needs a head with a transform")
        self._scale, self.transforms = part.scale or 1.0, bool(part.transform)
        if self.transforms:
            self.dense = nn.Linear(d_model, width, bias=not part.transform_lacks_bias)
            self.activation = Activation(part, "transform")
            self.norm = layer_norm(stack, width)
            nn.init.xavier_uniform_(self.dense.weight)
            if not part.transform_lacks_bias:
                nn.init.zeros_(self.dense.bias)
        if not part.is_tied:
            self.projection = nn.Linear(width, vocab_size, bias=False)
            nn.init.normal_(self.projection.weight, std=STD)
        self._is_tied = part.is_tied
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if part.has_bias else None

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """(..., d_model) to (..., vocab_size). A tied projection uses the table ``embedding``."""
        if self.transforms:
            hidden = self.norm(self.activation(self.dense(hidden)))
        weight = embedding if self._is_tied else self.projection.weight
        if self._scale == 1:
            return F.linear(hidden, weight, self.bias)
        scores = F.linear(hidden, weight) * self._scale
        return scores if self.bias is None else scores + self.bias
