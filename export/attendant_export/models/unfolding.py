"""Reading of the encoder's outputs by position, as the decoder of ByteNet does.

Kalchbrenner et al. (2016), "Neural Machine Translation in Linear Time", sections 3.1 and 3.2.
"""

import torch
import torch.nn.functional as F
from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import Architecture, LayerGroup, Stack
from torch import Tensor, nn

from attendant_export.models.attention import KeyValue
from attendant_export.models.unsupported import unsupported

MAX_LENGTH_FACTOR = 8


class Unfolding(nn.Module):
    """The reading of one layer of a decoder. `architecture.proto` has its equation."""

    def __init__(self, part: architecture_pb2.Unfolding, d_model: int) -> None:
        super().__init__()
        if not 1 <= part.length_factor <= MAX_LENGTH_FACTOR:
            raise unsupported(part, "length_factor", f"is not between 1 and {MAX_LENGTH_FACTOR}")
        self.output = nn.Linear(2 * d_model, d_model)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def project_memory(self, memory: Tensor) -> KeyValue:
        """The encoder's output (batch, 1, positions, d_model), twice."""
        return memory[:, None], memory[:, None]

    def attend(
        self, x: Tensor, memory: KeyValue, mask: Tensor | None, first_position: int = 0
    ) -> Tensor:
        """The output, shaped like the decoder's states ``x`` (batch, target, d_model).

        ``memory`` is that of `project_memory`, and ``mask`` (batch, 1, 1, positions) is False after
        the last output. ``first_position`` is the number of tokens of the target before ``x``.
        """
        read = memory[0][:, 0]
        if mask is not None:
            read = read * mask[:, 0, 0, :, None]
        read = read[:, first_position : first_position + x.shape[1]]
        read = F.pad(read, (0, 0, 0, x.shape[1] - read.shape[1]))
        return self.output(torch.cat([read, x], dim=-1))  # type: ignore[no-any-return]


def length_factor(architecture: Architecture) -> int:
    """The number of outputs of the encoder for each token of a source."""
    return max([1, *(group.unfolding.length_factor for group in architecture.decoder.groups)])


def unfolded(x: Tensor, is_real: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Embeddings (batch, source, d_model) with the positions after the tokens of each source.

    ``is_real`` (batch, source) is False for padding. Returns the embeddings (batch, ``factor`` *
    source, d_model) and the mask of the positions of each source.
    """
    x = F.pad(x * is_real[:, :, None], (0, 0, 0, (factor - 1) * x.shape[1]))
    positions = torch.arange(x.shape[1], device=x.device)
    return x, positions < factor * is_real.sum(1)[:, None]


def check_unfolding(architecture: Architecture) -> None:
    """Raise ValueError for an unfolding that is not supported."""
    groups = architecture.decoder.groups
    for group in groups:
        for name in ("cross_attention", "alignment_attention"):
            if group.HasField("unfolding") and group.HasField(name):
                raise ValueError(f"LayerGroup.unfolding: is set beside {name}")
    factors = {group.unfolding.length_factor for group in groups if group.HasField("unfolding")}
    if len(factors) > 1:
        raise ValueError("Unfolding.length_factor: differs between layers of the decoder")
    if max(factors, default=1) > 1 and not _has_convolutions_only(architecture):
        group = next(group for group in groups if group.HasField("unfolding"))
        raise unsupported(
            group.unfolding,
            "length_factor",
            "needs an encoder without positions and a decoder, both with convolutions only",
        )


def _has_convolutions_only(architecture: Architecture) -> bool:
    def is_convolutional(group: LayerGroup) -> bool:
        return group.HasField("convolution") and not (
            group.HasField("cross_attention") or group.HasField("alignment_attention")
        )

    def has_only(stack: Stack) -> bool:
        return all(map(is_convolutional, stack.groups))

    has_positions = architecture.source_embeddings.positions.kind
    return not has_positions and has_only(architecture.encoder) and has_only(architecture.decoder)
