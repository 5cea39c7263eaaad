"""Heads: projections of hidden states to vocabulary scores."""

import torch
import torch.nn.functional as F
from attendant.v1 import architecture_pb2
from torch import Tensor, nn

from attendant_export.models.embeddings import STD
from attendant_export.models.feed_forward import Activation


class Head(nn.Module):
    """Projection to the vocabulary, tied or separate, after the optional masked-LM transform."""

    def __init__(
        self, part: architecture_pb2.Head, d_model: int, vocab_size: int, norm_epsilon: float
    ) -> None:
        super().__init__()
        self._scale, self.transforms = part.scale or 1.0, bool(part.transform)
        if self.transforms:
            self.dense = nn.Linear(d_model, d_model)
            self.activation = Activation(part, "transform")
            self.norm = nn.LayerNorm(d_model, eps=norm_epsilon)
            nn.init.xavier_uniform_(self.dense.weight)
            nn.init.zeros_(self.dense.bias)
        if not part.is_tied:
            self.projection = nn.Linear(d_model, vocab_size, bias=False)
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
