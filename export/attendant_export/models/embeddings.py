"""Embeddings: tokens, positions and token types, summed and optionally normalized."""

import math
from dataclasses import dataclass

import torch
from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import (
    POSITION_KIND_LEARNED,
    POSITION_KIND_SINUSOIDAL_HALVED,
    POSITION_KIND_SINUSOIDAL_INTERLEAVED,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
    POSITION_KIND_UNSPECIFIED,
    Architecture,
)
from torch import Tensor, nn

from attendant_export.models.norm import layer_norm
from attendant_export.models.unsupported import check_at_least_one, unsupported

STD = 0.02
"""Initial standard deviation of embeddings, as in BERT. Scaled ones have 1 after scaling."""
SINUSOIDS = (
    POSITION_KIND_SINUSOIDAL_HALVED,
    POSITION_KIND_SINUSOIDAL_INTERLEAVED,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
)


@dataclass(frozen=True, slots=True)
class EmbeddingNames:
    """Names of a model's embedding modules."""

    tokens: str = "embedding"
    positions: str = "position_embedding"
    token_types: str = "segment_embedding"
    norm: str = "embedding_norm"
    projection: str = "embedding_projection"


SOURCE = EmbeddingNames()


def target_names(shares_embeddings: bool) -> EmbeddingNames:
    """Names of a decoder's embedding modules. It may share the encoder's table of tokens."""
    tokens = SOURCE.tokens if shares_embeddings else f"target_{SOURCE.tokens}"
    own = (SOURCE.positions, SOURCE.token_types, SOURCE.norm, SOURCE.projection)
    return EmbeddingNames(tokens, *(f"target_{name}" for name in own))


def sinusoids(part: architecture_pb2.Positions, num_positions: int, d_model: int) -> Tensor:
    """Sinusoidal vectors of the first positions: (num_positions, d_model).

    The channels are interleaved as in "Attention Is All You Need", section 3.5, or have all sines
    first. A fixed permutation of the channels makes no difference to the layers above. The rates
    end before 1 / 10000, or at 1 / 10000 as in Tensor2Tensor.
    """
    cpu = torch.device("cpu")  # also for a model whose parameters are on the device "meta"
    steps = d_model / 2
    if part.kind == POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR:
        steps -= 1
    rates = torch.exp(torch.arange(d_model // 2, device=cpu) * (-math.log(10_000.0) / steps))
    rows = torch.arange(part.offset, part.offset + num_positions, device=cpu)
    angles = rows.unsqueeze(1) * rates  # (positions, d_model / 2)
    if part.kind == POSITION_KIND_SINUSOIDAL_INTERLEAVED:
        return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)  # (positions, d_model)


class SinusoidalPositions(nn.Module):
    """Computed position vectors for texts of any length."""

    def __init__(self, part: architecture_pb2.Positions, d_model: int) -> None:
        super().__init__()
        if d_model % 2:
            raise unsupported(part, "kind", f"needs an even d_model, not {d_model}")
        if d_model < 4 and part.kind == POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR:
            raise unsupported(part, "kind", f"needs a d_model of at least 4, not {d_model}")
        self._part = part
        self.table: Tensor
        self.register_buffer("table", sinusoids(part, 1024, d_model), persistent=False)

    def vectors(self, first: int, length: int) -> Tensor:
        """The vectors of ``length`` positions from ``first`` on: (length, d_model)."""
        end = first + length
        if end > len(self.table):
            table = sinusoids(self._part, 2 * end, self.table.shape[1])
            self.table = table.to(self.table.device)
        return self.table[first:end]


class LearnedPositions(nn.Embedding):
    """A learned table of position vectors. Raises ValueError if the offset leaves no rows."""

    def __init__(self, part: architecture_pb2.Positions, d_model: int) -> None:
        if part.num_positions <= part.offset:
            raise unsupported(part, "num_positions", f"is no more than the offset {part.offset}")
        super().__init__(part.num_positions, d_model)
        self._offset = part.offset

    def vectors(self, first: int, length: int) -> Tensor:
        """The vectors of ``length`` positions from ``first`` on: (length, d_model).

        Raises ValueError for positions beyond the table.
        """
        end, limit = first + length, self.num_embeddings - self._offset
        if end > limit:
            raise ValueError(f"{end} tokens exceed the {limit} positions")
        return self.weight[self._offset + first : self._offset + end]


def max_text_tokens(part: architecture_pb2.Positions) -> int | None:
    """Limit of tokens of a text that the positions allow. None: no limit."""
    return part.num_positions - part.offset if part.kind == POSITION_KIND_LEARNED else None


def position_limit(architecture: Architecture) -> int | None:
    """Limit of tokens of a text that all positions of a network allow. None: no limit."""
    sides = (architecture.source_embeddings, architecture.target_embeddings)
    limits = (max_text_tokens(side.positions) for side in sides)
    return min(filter(None, limits), default=None)


def longest_text(architecture: Architecture, limit: int) -> int:
    """Limit of tokens of a text that all positions of a network allow, at most ``limit``."""
    return min(limit, position_limit(architecture) or limit)


def embedding_width(part: architecture_pb2.Embeddings, d_model: int) -> int:
    """The width of embeddings before their projection to ``d_model``, if they have one."""
    return part.d_embedding or d_model


class Embeddings:
    """Embeds token ids as the input of a stack. `add_to` makes its modules children of the model.

    This keeps the parameter names of earlier versions.
    """

    def __init__(
        self,
        part: architecture_pb2.Embeddings,
        d_model: int,
        stack: architecture_pb2.Stack,
        dropout: nn.Dropout,
        tokens: nn.Embedding | None = None,
    ) -> None:
        """``stack`` reads the embeddings. ``tokens`` is the table of others, to share it."""
        check_at_least_one(part, "vocab_size")
        self._scale, self._dropout = part.scale or 1.0, dropout
        width = embedding_width(part, d_model)
        self.tokens = nn.Embedding(part.vocab_size, width) if tokens is None else tokens
        self.positions = _positions(part.positions, width)
        self.token_types = (
            nn.Embedding(part.num_token_types, width) if part.num_token_types else None
        )
        if tokens is None:
            nn.init.normal_(self.tokens.weight, std=1 / part.scale if part.scale else STD)
        for table in (self.positions, self.token_types):
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=STD)
        self.norm = layer_norm(stack, width) if part.has_norm else None
        self.projection = nn.Linear(width, d_model) if part.d_embedding else None

    def add_to(self, model: nn.Module, names: EmbeddingNames) -> None:
        """Make the modules children of ``model``."""
        children: dict[str, nn.Module | None] = {
            names.tokens: self.tokens,
            names.positions: self.positions,
            names.token_types: self.token_types,
            names.norm: self.norm,
            names.projection: self.projection,
        }
        for name, module in children.items():
            if module is not None:
                model.add_module(name, module)

    def __call__(
        self, token_ids: Tensor, first_position: int = 0, token_types: Tensor | None = None
    ) -> Tensor:
        """(batch, length) to (batch, length, d_model). Tokens are of type 0 by default.

        Raises ValueError beyond the last learned position.
        """
        x: Tensor = self.tokens(token_ids)
        if self._scale != 1:
            x = x * self._scale
        if self.positions is not None:
            x = x + self.positions.vectors(first_position, token_ids.shape[1])
        if self.token_types is not None:
            types = torch.zeros_like(token_ids) if token_types is None else token_types
            x = x + self.token_types(types)
        if self.norm is not None:
            x = self.norm(x)
        x = self._dropout(x)
        return x if self.projection is None else self.projection(x)


def _positions(
    part: architecture_pb2.Positions, width: int
) -> SinusoidalPositions | LearnedPositions | None:
    if part.kind == POSITION_KIND_LEARNED:
        return LearnedPositions(part, width)
    if part.kind in SINUSOIDS:
        return SinusoidalPositions(part, width)
    if part.kind == POSITION_KIND_UNSPECIFIED:
        return None
    raise unsupported(part, "kind")
