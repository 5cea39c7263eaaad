"""The encoder-decoder Transformer of "Attention Is All You Need" (Vaswani et al., 2017).

Knows tensors only: no tokenizer, no files, no training. Past keys and values are explicit
arguments and results, so that cached and uncached decoding are the same code.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one attention layer, each (batch, heads, length, head_dim)."""


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Sizes of a Transformer. A deep encoder with a shallow decoder decodes fastest."""

    vocab_size: int
    d_model: int = 256
    num_heads: int = 8
    d_ff: int = 1024
    num_encoder_layers: int = 6
    num_decoder_layers: int = 2
    dropout: float = 0.1
    norm_first: bool = True
    """True: layer norm before each sublayer (pre-norm); False: after it, as in the paper."""
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.num_heads

    def __post_init__(self) -> None:
        if self.d_model % (2 * self.num_heads):
            raise ValueError(
                f"d_model ({self.d_model}) must be a multiple of 2 * num_heads ({self.num_heads})"
            )


def sinusoidal_positions(num_positions: int, d_model: int) -> Tensor:
    """Sinusoidal position vectors (section 3.5): sines in the first half, cosines in the second.

    The paper interleaves the two; a fixed permutation of the channels makes no difference to
    the layers above. Returns (num_positions, d_model).
    """
    rates = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000.0) / d_model))
    angles = torch.arange(num_positions).unsqueeze(1) * rates  # (positions, d_model / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)  # (positions, d_model)


class MultiHeadAttention(nn.Module):
    """Multi-head scaled dot-product attention (sections 3.2.1 and 3.2.2), self or cross.

    One fused projection holds query, key and value weights in this order; cross-attention uses
    its first third on the decoder's stream and the rest, once, on the encoder's output.
    """

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)
        for weight in self.query_key_value.weight.data.split(d_model):
            nn.init.xavier_uniform_(weight)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.query_key_value.bias)
        nn.init.zeros_(self.output.bias)

    def split_heads(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) to (batch, heads, length, head_dim)."""
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1))
        return heads.transpose(1, 2)

    def project_memory(self, memory: Tensor) -> KeyValue:
        """Keys and values of cross-attention from the encoder's output (batch, source, d_model)."""
        d_model = memory.shape[-1]
        weight, bias = self.query_key_value.weight[d_model:], self.query_key_value.bias[d_model:]
        keys, values = F.linear(memory, weight, bias).chunk(2, dim=-1)
        return self.split_heads(keys), self.split_heads(values)

    def attend(self, x: Tensor, memory: KeyValue, mask: Tensor | None) -> Tensor:
        """Cross-attention of ``x`` (batch, target, d_model) over projected ``memory``."""
        d_model = x.shape[-1]
        weight, bias = self.query_key_value.weight[:d_model], self.query_key_value.bias[:d_model]
        query = self.split_heads(F.linear(x, weight, bias))
        return self._weighted_values(query, *memory, mask=mask)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, past: KeyValue | None = None
    ) -> tuple[Tensor, KeyValue]:
        """Self-attention of ``x`` (batch, length, d_model) over ``past`` followed by ``x``.

        ``mask`` is boolean and broadcasts to (batch, heads, length, past + length): True attends.
        Returns the output, shaped as ``x``, and the keys and values including the past.
        """
        query, keys, values = map(self.split_heads, self.query_key_value(x).chunk(3, dim=-1))
        if past is not None:
            keys = torch.cat([past[0], keys], dim=2)  # (batch, heads, past + length, head_dim)
            values = torch.cat([past[1], values], dim=2)
        return self._weighted_values(query, keys, values, mask), (keys, values)

    def _weighted_values(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        heads = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.output(heads.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Sequential):
    """Position-wise feed-forward network (section 3.3)."""

    def __init__(self, d_model: int, d_ff: int, activation: nn.Module) -> None:
        expand, contract = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        super().__init__(expand, activation, contract)
        for linear in (expand, contract):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)


class Residual(nn.Module):
    """Layer norm and dropped-out residual around a sublayer (sections 3.1 and 5.4)."""

    def __init__(self, d_model: int, dropout: float, norm_first: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def before(self, x: Tensor) -> Tensor:
        """What the sublayer is given."""
        return self.norm(x) if self.norm_first else x

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream after the sublayer answered ``y``."""
        x = x + self.dropout(y)
        return x if self.norm_first else self.norm(x)


class Block(nn.Module):
    """One layer: self-attention, cross-attention (decoder only), feed-forward."""

    def __init__(
        self, config: TransformerConfig, cross_attention: bool, activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        width, residual = config.d_model, (config.d_model, config.dropout, config.norm_first)
        self.self_attention = MultiHeadAttention(width, config.num_heads)
        self.self_attention_residual = Residual(*residual)
        if cross_attention:
            self.cross_attention = MultiHeadAttention(width, config.num_heads)
            self.cross_attention_residual = Residual(*residual)
        self.feed_forward = FeedForward(width, config.d_ff, activation or nn.ReLU())
        self.feed_forward_residual = Residual(*residual)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        past: KeyValue | None = None,
        memory: KeyValue | None = None,
        memory_mask: Tensor | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """``x`` (batch, length, d_model) one layer further, and this layer's keys and values."""
        residual = self.self_attention_residual
        attended, present = self.self_attention(residual.before(x), mask, past)
        x = residual.after(x, attended)
        if memory is not None:
            residual = self.cross_attention_residual
            x = residual.after(
                x, self.cross_attention.attend(residual.before(x), memory, memory_mask)
            )
        residual = self.feed_forward_residual
        return residual.after(x, self.feed_forward(residual.before(x))), present


class Transformer(nn.Module):
    """The whole model. Source, target and output projection share one embedding (section 3.4)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.ModuleList(
            Block(config, cross_attention=False) for _ in range(config.num_encoder_layers)
        )
        self.decoder = nn.ModuleList(
            Block(config, cross_attention=True) for _ in range(config.num_decoder_layers)
        )
        # Pre-norm leaves the stream unnormalized at the top; post-norm has already done it.
        self.encoder_norm = nn.LayerNorm(config.d_model) if config.norm_first else nn.Identity()
        self.decoder_norm = nn.LayerNorm(config.d_model) if config.norm_first else nn.Identity()
        self.positions: Tensor
        self.register_buffer(
            "positions", sinusoidal_positions(1024, config.d_model), persistent=False
        )

    def embed(self, token_ids: Tensor, first_position: int = 0) -> Tensor:
        """Scaled embeddings plus positions: (batch, length) to (batch, length, d_model)."""
        end = first_position + token_ids.shape[1]
        if end > len(self.positions):
            self.positions = sinusoidal_positions(2 * end, self.config.d_model).to(
                self.positions.device
            )
        scaled = self.embedding(token_ids) * math.sqrt(self.config.d_model)
        return self.dropout(scaled + self.positions[first_position:end])  # type: ignore[no-any-return]

    def encode(self, source: Tensor) -> tuple[list[KeyValue], Tensor]:
        """Encode ``source`` (batch, source), right-padded with ``pad_id``.

        Returns the cross-attention keys and values of every decoder layer and the mask of real
        source positions (batch, 1, 1, source).
        """
        mask = (source != self.config.pad_id)[:, None, None, :]  # (batch, 1, 1, source)
        x = self.embed(source)
        for block in self.encoder:
            x, _ = block(x, mask)
        x = self.encoder_norm(x)
        layers = cast(Iterable[Block], self.decoder)
        return [block.cross_attention.project_memory(x) for block in layers], mask

    def decode(
        self,
        target: Tensor,
        memory: list[KeyValue],
        memory_mask: Tensor,
        past: list[KeyValue] | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Hidden states (batch, target, d_model) of ``target`` (batch, target) after ``past``.

        Also returns each layer's self-attention keys and values, to be given as ``past`` next.
        """
        num_past = past[0][0].shape[2] if past else 0
        length = target.shape[1]
        mask = torch.ones(length, num_past + length, dtype=torch.bool, device=target.device)
        mask = mask.tril(num_past)  # (target, past + target)
        x = self.embed(target, num_past)
        present = []
        for i, block in enumerate(self.decoder):
            x, kv = block(x, mask, past[i] if past else None, memory[i], memory_mask)
            present.append(kv)
        return self.decoder_norm(x), present

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the vocabulary: (..., d_model) to (..., vocab_size)."""
        return F.linear(hidden, self.embedding.weight)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Teacher-forced hidden states (batch, target, d_model) of ``target`` given ``source``."""
        memory, mask = self.encode(source)
        return self.decode(target, memory, mask)[0]
