"""Relative positions: a learned bias of attention scores (Raffel et al., 2020, section 2.1)."""

import math

import torch
from attendant.v1 import architecture_pb2
from torch import Tensor, nn

from attendant_export.models.embeddings import STD
from attendant_export.models.unsupported import check_at_least_one, unsupported

MAX_DISTANCE = 4096
"""Limit of ``max_distance``: graphs hold the bucket of each distance."""


def buckets(part: architecture_pb2.RelativePositions, distances: Tensor) -> Tensor:
    """The bucket of each distance, which is the key's position minus the query's."""
    size = _buckets_of_a_direction(part)
    exact = size // 2
    far = -distances.clamp(max=0) if part.is_unidirectional else distances.abs()
    # In fp32 as in the original, since the logarithm decides at the bounds of buckets.
    growth = torch.log(far.float() / exact) / math.log(part.max_distance / exact)
    large = exact + (growth * (size - exact)).long()
    found = torch.where(far < exact, far, large.clamp(exact, size - 1))
    return found if part.is_unidirectional else found + size * (distances > 0)


def _buckets_of_a_direction(part: architecture_pb2.RelativePositions) -> int:
    return part.num_buckets if part.is_unidirectional else part.num_buckets // 2


class RelativePositions(nn.Embedding):
    """The table of biases (num_buckets, heads) of a stack."""

    def __init__(self, part: architecture_pb2.Stack) -> None:
        """Raises ValueError that names an unsupported field."""
        relative = part.relative_positions
        check_at_least_one(relative, "num_buckets")
        multiple = 2 if relative.is_unidirectional else 4
        if relative.num_buckets % multiple:
            raise unsupported(relative, "num_buckets", f"is not a multiple of {multiple}")
        if relative.max_distance > MAX_DISTANCE:
            raise unsupported(relative, "max_distance", f"is more than {MAX_DISTANCE}")
        exact = _buckets_of_a_direction(relative) // 2
        if relative.max_distance <= exact:
            raise unsupported(relative, "max_distance", f"is not more than {exact}")
        num_heads = {
            group.self_attention.num_heads
            for group in part.groups
            if group.HasField("self_attention")
        }
        if not num_heads:
            raise ValueError("Stack.relative_positions: no layer has self-attention")
        if len(num_heads) > 1:
            raise ValueError("Stack.relative_positions: the layers differ in num_heads")
        if any(group.self_attention.window for group in part.groups):
            raise ValueError("Stack.relative_positions: is not supported with Attention.window")
        super().__init__(relative.num_buckets, num_heads.pop())
        self._part = relative
        nn.init.normal_(self.weight, std=STD)

    def bias(self, length: int, num_past: int = 0) -> Tensor:
        """The bias of the scores of ``length`` tokens after ``num_past`` earlier ones.

        Returns (1, heads, length, num_past + length).
        """
        positions = torch.arange(num_past + length, device=self.weight.device)
        distances = positions - positions[num_past:, None]  # (query, key)
        return self(buckets(self._part, distances)).permute(2, 0, 1)[None]  # type: ignore[no-any-return]


def relative_positions(part: architecture_pb2.Stack) -> RelativePositions | None:
    """The table of biases of a stack, if it has relative positions."""
    return RelativePositions(part) if part.HasField("relative_positions") else None
