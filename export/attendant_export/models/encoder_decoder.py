"""Encoder-decoder models, such as the Transformer of "Attention Is All You Need".

Depends on tensors only, not on tokenizers, files or training.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

from attendant.v1.architecture_pb2 import Architecture
from torch import Tensor, nn

from attendant_export.models.attention import KeyValue
from attendant_export.models.embeddings import SOURCE, Embeddings, target_names
from attendant_export.models.head import Head
from attendant_export.models.norm import final_norm
from attendant_export.models.relative_positions import relative_positions
from attendant_export.models.special_tokens import TranslationTokens
from attendant_export.models.stack import MixerState, Stack, check_attention_only
from attendant_export.models.unsupported import check_at_least_one, unsupported


class DecoderPast(NamedTuple):
    """What the decoder remembers of the tokens before the next one."""

    num_tokens: int
    states: list[MixerState]
    """The state of each layer's token mixer."""

    def of_rows(self, rows: Sequence[int]) -> "DecoderPast":
        """The past of these rows, in this order; rows may occur several times or not at all."""
        chosen = list(rows)
        states = [
            state[chosen] if isinstance(state, Tensor) else (state[0][chosen], state[1][chosen])
            for state in self.states
        ]
        return DecoderPast(self.num_tokens, states)


class EncoderDecoder(nn.Module):
    """The model of an architecture with a decoder."""

    embedding: nn.Embedding
    """The token embedding table of the source."""

    def __init__(
        self,
        architecture: Architecture,
        tokens: TranslationTokens | None = None,
        dropout: float = 0.0,
    ) -> None:
        """Raises ValueError that names an unsupported field of the architecture."""
        super().__init__()
        _check(architecture)
        self.architecture = architecture
        self.tokens = tokens or TranslationTokens()
        encoder, decoder, width = architecture.encoder, architecture.decoder, architecture.d_model
        self.dropout = nn.Dropout(dropout)
        self._source = Embeddings(architecture.source_embeddings, width, encoder, self.dropout)
        self._target = Embeddings(
            *(architecture.target_embeddings, width, decoder, self.dropout),
            tokens=self._source.tokens if architecture.shares_embeddings else None,
        )
        self._source.add_to(self, SOURCE)
        self._target.add_to(self, target_names(architecture.shares_embeddings))
        self.encoder = Stack(encoder, width, dropout)
        self.decoder = Stack(decoder, width, dropout)
        self.encoder_norm = final_norm(encoder, width)
        self.decoder_norm = final_norm(decoder, width)
        self.encoder_relative_positions = relative_positions(encoder)
        self.decoder_relative_positions = relative_positions(decoder)
        scored = architecture.target_embeddings
        self.head = Head(architecture.head, width, scored, decoder)

    def encode(self, source: Tensor) -> tuple[list[KeyValue], Tensor]:
        """Encode ``source`` (batch, source), right-padded with ``pad_id``.

        Returns the cross-attention keys and values of every decoder layer and the mask of real
        source positions (batch, 1, 1, source).
        """
        mask = (source != self.tokens.pad_id)[:, None, None, :]  # (batch, 1, 1, source)
        relative = self.encoder_relative_positions
        bias = None if relative is None else relative.bias(source.shape[1])
        x = self._source(source)
        for layer in self.encoder.layers:
            x, _ = layer(x, mask, bias=bias)
        x = self.encoder_norm(x)
        return [layer.cross_attention.project_memory(x) for layer in self.decoder.layers], mask

    def decode(
        self,
        target: Tensor,
        memory: list[KeyValue],
        memory_mask: Tensor,
        past: DecoderPast | None = None,
    ) -> tuple[Tensor, DecoderPast]:
        """Hidden states (batch, target, d_model) of ``target`` (batch, target) after ``past``.

        Also returns the ``past`` of the next call.
        """
        num_past = past.num_tokens if past else 0
        relative = self.decoder_relative_positions
        bias = None if relative is None else relative.bias(target.shape[1], num_past)
        x = self._target(target, num_past)
        states = []
        for i, layer in enumerate(self.decoder.layers):
            mixed = past.states[i] if past else None
            x, state = layer(x, None, mixed, memory[i], memory_mask, bias)
            states.append(state)
        return self.decoder_norm(x), DecoderPast(num_past + target.shape[1], states)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary: (..., d_model) to (..., vocab_size)."""
        return cast(Tensor, self.head(hidden, self._target.tokens.weight))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Teacher-forced hidden states (batch, target, d_model) of ``target`` given ``source``."""
        memory, mask = self.encode(source)
        return self.decode(target, memory, mask)[0]


def _check(architecture: Architecture) -> None:
    check_at_least_one(architecture, "d_model")
    for name in ("source_embeddings", "target_embeddings", "encoder", "decoder", "head"):
        if not architecture.HasField(name):
            raise ValueError(f"Architecture.{name}: missing, and an encoder-decoder needs it")
    if not (architecture.encoder.groups and architecture.decoder.groups):
        raise ValueError("Stack.groups: missing, and an encoder-decoder needs layers")
    source, target = architecture.source_embeddings, architecture.target_embeddings
    for side in (source, target):
        if side.d_embedding:
            raise unsupported(side, "d_embedding", "is not supported in an encoder-decoder")
    if architecture.shares_embeddings and source.vocab_size != target.vocab_size:
        raise unsupported(
            target, "vocab_size", f"differs from the source's {source.vocab_size}, but is shared"
        )
    check_attention_only(architecture.encoder)
    for group in architecture.encoder.groups:
        if group.HasField("cross_attention"):
            raise ValueError("LayerGroup.cross_attention: is not for an encoder")
    for group in architecture.decoder.groups:
        if group.num_repeats:
            raise unsupported(group, "num_repeats", "is not for a decoder")
        if not group.HasField("cross_attention"):
            raise ValueError("LayerGroup.cross_attention: missing, and a decoder needs it")
        if group.HasField("self_attention") and not group.self_attention.is_causal:
            raise unsupported(group.self_attention, "is_causal", "is not for a decoder")
        for part in (group.self_attention, group.cross_attention):
            if part.HasField("rotary_positions"):
                raise ValueError("Attention.rotary_positions: is not supported in a decoder")
            if part.HasField("query_key_norm"):
                raise ValueError("Attention.query_key_norm: is not supported in a decoder")
            for field in ("window", "num_key_value_heads"):
                if getattr(part, field):
                    raise unsupported(part, field, "is not supported in a decoder")
        if group.cross_attention.is_causal:
            raise unsupported(group.cross_attention, "is_causal", "is not for cross-attention")
