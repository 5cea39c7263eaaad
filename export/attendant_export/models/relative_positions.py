"""Relative positions: a learned bias of attention scores (Raffel et al., 2020, section 2.1)."""

import math

import torch
from attendant.v1 import architecture_pb2
from torch import Tensor, nn

from attendant_export.models.embeddings import STD
from attendant_export.models.unsupported import check_at_least_one, unsupported


def buckets(part: architecture_pb2.RelativePositions, distances: Tensor) -> Tensor:
    """The bucket of each distance, which is the key's position minus the query's."""
    half, exact = part.num_buckets // 2, part.num_buckets // 4
    far = distances.abs()
    # In fp32 as in the original, since the logarithm decides at the bounds of buckets.
    growth = torch.log(far.float() / exact) / math.log(part.max_distance / exact)
    large = exact + (growth * (half - exact)).long()
    found = torch.where(far < exact, far, large.clamp(exact, half - 1))
    return found + half * (distances > 0)


class RelativePositions(nn.Embedding):
    """The table of biases (num_buckets, heads) of a stack."""

    def __init__(self, part: architecture_pb2.Stack) -> None:
        """Raises ValueError that names an unsupported field."""
        relative = part.relative_positions
        check_at_least_one(relative, "num_buckets")
        if relative.num_buckets % 4:
            raise unsupported(relative, "num_buckets", "is not a multiple of 4")
        if relative.max_distance <= relative.num_buckets // 4:
            raise unsupported(relative, "max_distance", "is not more than num_buckets / 4")
        num_heads = part.groups[0].self_attention.num_heads
        if any(group.self_attention.num_heads != num_heads for group in part.groups):
            raise ValueError("Stack.relative_positions: the layers differ in num_heads")
        super().__init__(relative.num_buckets, num_heads)
        self._part = relative
        nn.init.normal_(self.weight, std=STD)

    def bias(self, length: int) -> Tensor:
        """The bias of the scores of texts of ``length`` tokens: (1, heads, length, length)."""
        positions = torch.arange(length, device=self.weight.device)
        distances = positions - positions[:, None]  # (query, key)
        return self(buckets(self._part, distances)).permute(2, 0, 1)[None]  # type: ignore[no-any-return]
