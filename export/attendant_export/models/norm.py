"""Norms before or after sublayers, and after the last layer."""

from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import (
    NORM_KIND_LAYER_WITHOUT_BIAS,
    NORM_KIND_RMS,
    NORM_KIND_UNSPECIFIED,
    NORM_POSITION_NONE,
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    NORM_POSITION_SANDWICH,
)
from torch import Tensor, nn

from attendant_export.models.unsupported import unsupported


class Residual(nn.Module):
    """Norm, dropout and residual of a sublayer ("Attention Is All You Need", 3.1, 5.4)."""

    def __init__(
        self, part: architecture_pb2.Stack, d_model: int, dropout: float, has_norm: bool = True
    ) -> None:
        super().__init__()
        positions = (
            *(NORM_POSITION_PRE, NORM_POSITION_POST),
            *(NORM_POSITION_SANDWICH, NORM_POSITION_NONE),
        )
        if part.norm_position not in positions:
            raise unsupported(part, "norm_position")
        self.is_plain = part.norm_position == NORM_POSITION_NONE
        self.norm = _norm(part, d_model) if has_norm and not self.is_plain else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.is_post_norm = part.norm_position == NORM_POSITION_POST
        is_sandwich = part.norm_position == NORM_POSITION_SANDWICH
        self.output_norm = _norm(part, d_model) if is_sandwich else nn.Identity()

    def before(self, x: Tensor) -> Tensor:
        """The input of the sublayer."""
        return x if self.is_post_norm else self.norm(x)

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        """The residual stream ``x`` after the sublayer returned ``y``."""
        y = self.dropout(self.output_norm(y))
        if self.is_plain:
            return y
        return self.norm(x + y) if self.is_post_norm else x + y


def norm_of_sublayer(part: architecture_pb2.Stack, width: int) -> nn.Module:
    """A norm inside a sublayer of ``width`` channels; none if sublayers have no norms."""
    return nn.Identity() if part.norm_position == NORM_POSITION_NONE else _norm(part, width)


def final_norm(part: architecture_pb2.Stack, d_model: int) -> nn.Module:
    """The norm after the last layer, if there is one."""
    return _norm(part, d_model) if part.has_final_norm else nn.Identity()


def _norm(part: architecture_pb2.Stack, d_model: int) -> nn.Module:
    if part.norm_kind == NORM_KIND_RMS:
        return nn.RMSNorm(d_model, eps=part.norm_epsilon)
    if part.norm_kind in (NORM_KIND_UNSPECIFIED, NORM_KIND_LAYER_WITHOUT_BIAS):
        return layer_norm(part, d_model)
    raise unsupported(part, "norm_kind")


def layer_norm(part: architecture_pb2.Stack, width: int) -> nn.LayerNorm:
    """A norm of embeddings or heads, which are layer norms whatever the layers have."""
    has_bias = part.norm_kind != NORM_KIND_LAYER_WITHOUT_BIAS
    return nn.LayerNorm(width, eps=part.norm_epsilon, bias=has_bias)
