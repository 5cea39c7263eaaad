"""The decoder that encoder-decoder models and causal language models share, and its states."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias, cast

from attendant.v1 import architecture_pb2
from torch import Tensor, nn

from attendant_export.models.attention import KeyValue
from attendant_export.models.embeddings import Embeddings
from attendant_export.models.head import Head
from attendant_export.models.relative_positions import RelativePositions
from attendant_export.models.stack import MixerState, Stack
from attendant_export.models.unsupported import unsupported

Memory: TypeAlias = Sequence[KeyValue | None]
"""Keys and values of the source for each layer of a decoder. None: the layer does not attend."""


class DecoderPast(NamedTuple):
    """What the decoder remembers of the tokens before the next one."""

    num_tokens: int
    states: list[MixerState | None]
    """The state of each layer's token mixer. None: it is empty."""

    def of_rows(self, rows: Sequence[int]) -> "DecoderPast":
        """The past of these rows, in this order; rows may occur several times or not at all."""
        chosen = list(rows)
        return DecoderPast(self.num_tokens, [_of_rows(state, chosen) for state in self.states])


def _of_rows(state: MixerState | None, rows: list[int]) -> MixerState | None:
    if state is None or isinstance(state, Tensor):
        return None if state is None else state[rows]
    return state[0][rows], state[1][rows]


class DecodingStart(NamedTuple):
    """What the decoder has before it writes the first token."""

    tokens: Tensor
    """The first input tokens (batch, 1)."""
    past: DecoderPast | None = None
    """The states after the tokens before these. None: there are none."""
    memory: Memory = ()
    """Keys and values of each layer's attention to the source. Empty without an encoder."""
    memory_mask: Tensor | None = None
    """The mask of real source positions (batch, 1, 1, source)."""


class Decoder(nn.Module):
    """The methods of a model with a decoder. The model's constructor makes these modules."""

    decoder: Stack
    decoder_norm: nn.Module
    decoder_relative_positions: RelativePositions | None
    head: Head
    _target: Embeddings

    def decode(
        self,
        target: Tensor,
        memory: Memory = (),
        memory_mask: Tensor | None = None,
        past: DecoderPast | None = None,
    ) -> tuple[Tensor, DecoderPast]:
        """Hidden states (batch, target, d_model) of ``target`` (batch, target) after ``past``.

        ``memory`` and its mask are those of `DecodingStart`. Also returns the ``past`` of the next
        call.
        """
        num_past = past.num_tokens if past else 0
        relative = self.decoder_relative_positions
        bias = None if relative is None else relative.bias(target.shape[1], num_past)
        x = self._target(target, num_past)
        states: list[MixerState | None] = []
        for i, layer in enumerate(self.decoder.layers):
            mixed, source = past.states[i] if past else None, memory[i] if memory else None
            x, state = layer(x, None, mixed, source, memory_mask, bias, num_past)
            states.append(state)
        return self.decoder_norm(x), DecoderPast(num_past + target.shape[1], states)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary: (..., d_model) to (..., vocab_size)."""
        return cast(Tensor, self.head(hidden, self._target.tokens.weight))


def check_decoder(part: architecture_pb2.Stack) -> None:
    """Raise ValueError that names a field which no decoder supports."""
    for group in part.groups:
        if group.num_repeats:
            raise unsupported(group, "num_repeats", "is not for a decoder")
        if group.HasField("self_attention") and not group.self_attention.is_causal:
            raise unsupported(group.self_attention, "is_causal", "is not for a decoder")
        if group.self_attention.window:
            raise unsupported(group.self_attention, "window", "is not supported in a decoder")
