"""Encoder-decoder models, such as the Transformer of "Attention Is All You Need".

Depends on tensors only, not on tokenizers, files or training.
"""

from attendant.v1.architecture_pb2 import Architecture
from torch import Tensor, nn

from attendant_export.models.convolution import check_decoder_convolutions
from attendant_export.models.decoder import (
    Decoder,
    DecoderPast,
    DecodingStart,
    check_decoder,
)
from attendant_export.models.embeddings import SOURCE, Embeddings, target_names
from attendant_export.models.head import Head
from attendant_export.models.norm import final_norm
from attendant_export.models.recurrent import (
    check_decoder_recurrences,
    final_state,
    reads_source,
    starts_from_source,
)
from attendant_export.models.relative_positions import relative_positions
from attendant_export.models.special_tokens import TranslationTokens
from attendant_export.models.stack import Stack, check_encoder
from attendant_export.models.unfolding import check_unfolding, length_factor, unfolded
from attendant_export.models.unsupported import check_at_least_one, unsupported


class EncoderDecoder(Decoder):
    """The model of an architecture with an encoder and a decoder."""

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

    def start(self, source: Tensor) -> DecodingStart:
        """Encode ``source`` (batch, source), right-padded, to begin its translation."""
        is_real = source != self.tokens.pad_id
        relative = self.encoder_relative_positions
        bias = None if relative is None else relative.bias(source.shape[1])
        x = self._source(source)
        if (factor := length_factor(self.architecture)) > 1:
            x, is_real = unfolded(x, is_real, factor)
        for layer in self.encoder.layers:
            x = layer.mix_texts(x, is_real, bias)
        x = self.encoder_norm(x)
        parts = [layer.source_part for layer in self.decoder.layers]
        memory = [None if each is None else each.project_memory(x) for each in parts]
        past = None
        if starts_from_source(self.architecture):
            final = final_state(self.architecture.encoder, x, is_real)
            past = DecoderPast(0, [layer.first_state(final) for layer in self.decoder.layers])
        first = source.new_full((len(source), 1), self.tokens.bos_id)
        return DecodingStart(first, past, memory, is_real[:, None, None, :])

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Teacher-forced hidden states (batch, target, d_model) of ``target`` given ``source``."""
        start = self.start(source)
        return self.decode(target, start.memory, start.memory_mask, start.past)[0]


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
    check_encoder(architecture.encoder)
    check_decoder(architecture.decoder)
    check_decoder_recurrences(architecture)
    check_decoder_convolutions(architecture)
    check_unfolding(architecture)
    for group in architecture.decoder.groups:
        has_own = group.HasField("recurrent") or group.HasField("convolution")
        if not reads_source(group) and not has_own:
            raise ValueError("LayerGroup.cross_attention: missing, and a decoder needs it")
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
