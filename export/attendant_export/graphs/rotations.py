"""Tables of the rotations of single positions, for decoder steps.

Whole texts compute theirs: see `text_positions`.
"""

from collections.abc import Iterator

import torch
from attendant.v1.architecture_pb2 import Architecture, Attention
from attendant_manifest.step_rules import MAX_STEP_TOKENS

from attendant_export.graphs.builder import Array
from attendant_export.models.rotary_positions import rotation_rates


def rotation_names(part: Attention) -> tuple[str, str]:
    """Names of the tables of cosines and sines of an attention with rotary positions."""
    base = f"rotations_{part.head_dim}_{part.rotary_positions.theta!r}"
    return f"{base}.cosines", f"{base}.sines"


def rotations(architecture: Architecture, max_positions: int) -> dict[str, Array]:
    """The tables (positions, head_dim / 2) of a decoder, by name, for ``max_positions`` tokens.

    A run of several tokens may go beyond the last position, so the tables have more rows.
    """
    tables: dict[str, Array] = {}
    rows = torch.arange(max_positions + MAX_STEP_TOKENS, device="cpu").float()
    for part in _rotated(architecture):
        angles = rows[:, None] * rotation_rates(part)
        for name, table in zip(rotation_names(part), (angles.cos(), angles.sin()), strict=True):
            tables[name] = table.numpy()
    return tables


def names_of_rotations(architecture: Architecture) -> set[str]:
    """Names of all tables of a decoder."""
    return {name for part in _rotated(architecture) for name in rotation_names(part)}


def _rotated(architecture: Architecture) -> Iterator[Attention]:
    for group in architecture.decoder.groups:
        if group.self_attention.HasField("rotary_positions"):
            yield group.self_attention
