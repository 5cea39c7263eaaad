"""Rotary positions: rotations of queries and keys (Su et al., 2021)."""

import torch
from attendant.v1 import architecture_pb2
from torch import Tensor

from attendant_export.models.unsupported import unsupported


def check_rotary_positions(part: architecture_pb2.Attention) -> None:
    """Raise ValueError if an attention has rotary positions that are not supported."""
    if not part.HasField("rotary_positions"):
        return
    if part.head_dim % 2:
        raise unsupported(part, "head_dim", "is odd, and rotary positions need pairs of channels")
    if not part.rotary_positions.theta > 0:
        raise unsupported(part.rotary_positions, "theta", "is not positive")


def rotation_rates(part: architecture_pb2.Attention) -> Tensor:
    """The angle for each position and pair of channels: (head_dim / 2)."""
    # In fp32 as in the original.
    exponents = torch.arange(0, part.head_dim, 2, device="cpu").float() / part.head_dim
    return 1 / part.rotary_positions.theta**exponents


def rotate(part: architecture_pb2.Attention, x: Tensor, first: int) -> Tensor:
    """``x`` (batch, heads, length, head_dim), rotated by the positions from ``first`` on."""
    positions = torch.arange(first, first + x.shape[2], device=x.device).float()
    angles = positions[:, None] * rotation_rates(part).to(x.device)  # (length, head_dim / 2)
    cosines, sines = angles.cos(), angles.sin()
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cosines - right * sines, right * cosines + left * sines], dim=-1)
