"""GRU and LSTM, token mixers whose state each token replaces.

`architecture.proto` has their equations. The state of a GRU is its vector h, that of an LSTM are h
and the memory cell c.
"""

from typing import TypeAlias

import torch
from attendant.v1 import architecture_pb2
from attendant.v1.architecture_pb2 import (
    RECURRENT_CELL_GRU,
    RECURRENT_CELL_LSTM,
    Architecture,
    LayerGroup,
    Stack,
)
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attendant_export.models.unsupported import unsupported

CellState: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""The vector h (batch, d_model) of a GRU; h and c of an LSTM."""
_CELLS = {RECURRENT_CELL_GRU: nn.GRU, RECURRENT_CELL_LSTM: nn.LSTM}
_NUM_GATES = {RECURRENT_CELL_GRU: 3, RECURRENT_CELL_LSTM: 4}
_FORGET_GATE = 1
"""Place of the forget gate among the gates of an LSTM."""


def num_states(part: architecture_pb2.Recurrent) -> int:
    """The number of vectors that a row keeps from token to token."""
    return 2 if part.cell == RECURRENT_CELL_LSTM else 1


def direction_suffixes(part: architecture_pb2.Recurrent) -> tuple[str, ...]:
    """The ends of the names of the parameters of each direction, in the order of the channels."""
    return ("", "_reverse") if part.is_bidirectional else ("",)


class Recurrent(nn.Module):
    """A recurrence over the tokens of texts, from one side or from both."""

    def __init__(self, part: architecture_pb2.Recurrent, d_model: int) -> None:
        super().__init__()
        if part.cell not in _CELLS:
            raise unsupported(part, "cell")
        if part.is_bidirectional and d_model % 2:
            raise unsupported(part, "is_bidirectional", f"needs an even d_model, not {d_model}")
        self._part = part
        self.cells = _CELLS[part.cell](
            d_model,
            d_model // len(direction_suffixes(part)),
            batch_first=True,
            bidirectional=part.is_bidirectional,
        )
        if part.starts_from_source:
            self.start = nn.Linear(d_model, num_states(part) * d_model)
            nn.init.xavier_uniform_(self.start.weight)
            nn.init.zeros_(self.start.bias)
        self._initialize()

    def _initialize(self) -> None:
        """Orthogonal products of states, and an LSTM that begins by keeping its memory cell."""
        for name, values in self.cells.named_parameters():
            gates = values.data.chunk(_NUM_GATES[self._part.cell])
            if name.startswith("bias"):
                nn.init.zeros_(values)
                if self._part.cell == RECURRENT_CELL_LSTM and "ih" in name:
                    nn.init.ones_(gates[_FORGET_GATE])
                continue
            initialize = nn.init.xavier_uniform_ if "ih" in name else nn.init.orthogonal_
            for gate in gates:
                initialize(gate)

    def forward(self, x: Tensor, state: CellState | None = None) -> tuple[Tensor, CellState]:
        """Mix ``x`` (batch, length, d_model), whose tokens follow those of ``state``.

        Returns the output, shaped like ``x``, and the state after the last token. States are fp32.
        """
        with torch.autocast(x.device.type, enabled=False):
            output, last = self.cells(x.float(), _with_layers(state))
        return output.to(x.dtype), _without_layers(last)

    def mix_texts(self, x: Tensor, is_real: Tensor) -> Tensor:
        """Mix texts ``x`` (batch, length, d_model), from both sides if the part is bidirectional.

        Tokens where ``is_real`` (batch, length) is False are skipped; their outputs are undefined.
        """
        order = (~is_real).long().argsort(dim=1, stable=True)  # real tokens first
        places = order[:, :, None].expand_as(x)
        packed = pack_padded_sequence(
            x.gather(1, places).float(),
            is_real.sum(1).cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        with torch.autocast(x.device.type, enabled=False):
            output, _ = pad_packed_sequence(
                self.cells(packed)[0], batch_first=True, total_length=x.shape[1]
            )
        return torch.zeros_like(output).scatter(1, places, output).to(x.dtype)

    def first_state(self, final: Tensor) -> CellState:
        """The state before the first token, from the encoder's final state (batch, d_model)."""
        states = torch.tanh(self.start(final)).float().chunk(num_states(self._part), dim=-1)
        return states[0] if len(states) == 1 else (states[0], states[1])


def _with_layers(state: CellState | None) -> CellState | None:
    """A state in the form of PyTorch's modules, with a dimension of layers in front."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state[None].contiguous()
    return state[0][None].contiguous(), state[1][None].contiguous()


def _without_layers(state: CellState) -> CellState:
    return state[0] if isinstance(state, Tensor) else (state[0][0], state[1][0])


def ends_bidirectional(encoder: Stack) -> bool:
    """Whether the second half of the final state of an encoder is that at the first token."""
    return encoder.groups[-1].recurrent.is_bidirectional


def final_state(encoder: Stack, x: Tensor, is_real: Tensor) -> Tensor:
    """The final state (batch, d_model) of an encoder, which `architecture.proto` defines.

    ``x`` (batch, length, d_model) is its output; ``is_real`` (batch, length) is False for padding.
    """
    positions = torch.arange(x.shape[1], device=x.device)
    last = (positions * is_real).amax(1)
    rows = torch.arange(len(x), device=x.device)
    at_end = x[rows, last]
    if not ends_bidirectional(encoder):
        return at_end
    half = x.shape[2] // 2
    first = is_real.long().argmax(1)
    return torch.cat([at_end[:, :half], x[rows, first, half:]], dim=-1)


def check_decoder_recurrences(architecture: Architecture) -> None:
    """Raise ValueError for recurrences that a decoder cannot have."""
    groups = list(architecture.decoder.groups)
    for group in groups:
        if group.recurrent.is_bidirectional:
            raise unsupported(group.recurrent, "is_bidirectional", "is not for a decoder")
    starts = {
        group.recurrent.starts_from_source
        for group in groups
        if group.HasField("recurrent") or group.HasField("ssru")
    }
    if len(starts) > 1:
        raise ValueError("Recurrent.starts_from_source: differs between recurrences of the decoder")
    if starts != {True} and not any(map(reads_source, groups)):
        raise ValueError(
            "Architecture.decoder: nothing reads the source; want an attention to it, or "
            "Recurrent.starts_from_source"
        )


def reads_source(group: LayerGroup) -> bool:
    """Whether the layers of a group read the source."""
    attends = group.HasField("cross_attention") or group.HasField("alignment_attention")
    return attends or group.HasField("unfolding")


def starts_from_source(architecture: Architecture) -> bool:
    """Whether the decoder's states begin with the final state of the encoder."""
    return any(group.recurrent.starts_from_source for group in architecture.decoder.groups)


def has_recurrences(part: Stack) -> bool:
    """Whether a layer has a GRU or an LSTM."""
    return bool(recurrent_layers(part))


def recurrent_layers(part: Stack) -> list[tuple[int, architecture_pb2.Recurrent]]:
    """The numbers and the parts of the layers with a GRU or an LSTM."""
    layers = [group for group in part.groups for _ in range(group.num_layers)]
    return [
        (number, group.recurrent)
        for number, group in enumerate(layers)
        if group.HasField("recurrent")
    ]
