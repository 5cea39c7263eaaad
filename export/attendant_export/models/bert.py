"""BERT (Devlin et al., 2019): an encoder with a masked-language-model head, and its poolings.

Knows tensors only: no tokenizer, no files, no training. Its layers are the `Block` of
`transformer.py`, with GELU.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attendant_export.models.transformer import Block, TransformerConfig

Pooling = Literal["mean", "cls", "max"]


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Sizes of a BERT and the ids of its special tokens."""

    vocab_size: int
    d_model: int = 256
    num_heads: int = 4
    d_ff: int = 1024
    num_layers: int = 6
    max_positions: int = 512
    num_segments: int = 2
    dropout: float = 0.1
    norm_first: bool = False
    """False: layer norm after each sublayer (post-norm), as in BERT; True: before it (pre-norm)."""
    pad_id: int = 0
    cls_id: int = 2
    sep_id: int = 3
    mask_id: int = 4

    @property
    def block(self) -> TransformerConfig:
        """The sizes that one layer wants."""
        return TransformerConfig(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            num_heads=self.num_heads,
            d_ff=self.d_ff,
            dropout=self.dropout,
            norm_first=self.norm_first,
            pad_id=self.pad_id,
        )


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector per sequence, not normalized, from ``hidden`` (batch, length, d_model).

    ``mask`` (batch, length) is True at real tokens, [CLS] and [SEP] included. ``mean`` and ``max``
    run over the real tokens, ``cls`` takes the first one. Returns (batch, d_model).
    """
    if pooling == "cls":
        return hidden[:, 0]
    mask = mask.unsqueeze(-1)  # (batch, length, 1)
    if pooling == "max":
        return hidden.masked_fill(~mask, float("-inf")).amax(dim=1)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


class MaskHead(nn.Module):
    """Masked-language-model head: dense, GELU, layer norm, then the tied projection and a bias."""

    def __init__(self, d_model: int, vocab_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        nn.init.xavier_uniform_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """(rows, d_model) to (rows, vocab_size) with ``embedding`` (vocab_size, d_model)."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), embedding, self.bias)


class Bert(nn.Module):
    """The whole model. The output projection is the token embedding."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        width = config.d_model
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Embedding(config.max_positions, width)
        self.segment_embedding = nn.Embedding(config.num_segments, width)
        for table in (self.embedding, self.position_embedding, self.segment_embedding):
            nn.init.normal_(table.weight, std=0.02)
        self.embedding_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.ModuleList(
            Block(config.block, cross_attention=False, activation=nn.GELU())
            for _ in range(config.num_layers)
        )
        # Pre-norm leaves the stream unnormalized at the top; post-norm has already done it.
        self.encoder_norm = nn.LayerNorm(width) if config.norm_first else nn.Identity()
        self.mask_head = MaskHead(width, config.vocab_size)

    def begin_as_averages(self) -> None:
        """Make every layer of a pre-norm model the identity, from which training departs.

        Its sentence embeddings are then its averaged token embeddings: the layers go on from what
        these have learned alone.
        """
        for block in cast(Iterable[Block], self.encoder):
            nn.init.zeros_(block.self_attention.output.weight)
            nn.init.zeros_(cast(nn.Linear, block.feed_forward[-1]).weight)

    def real_tokens(self, token_ids: Tensor) -> Tensor:
        """True where ``token_ids`` (batch, length) is not padding."""
        return token_ids != self.config.pad_id

    def embed(self, token_ids: Tensor, segment_ids: Tensor | None = None) -> Tensor:
        """Sum of the three embeddings, normalized: (batch, length) to (batch, length, d_model).

        Raises ValueError if the sequences are longer than ``max_positions``.
        """
        length = token_ids.shape[1]
        if length > self.config.max_positions:
            raise ValueError(f"{length} tokens exceed the {self.config.max_positions} positions")
        if segment_ids is None:
            segment_ids = torch.zeros_like(token_ids)
        x = self.embedding(token_ids) + self.position_embedding.weight[:length]
        x = x + self.segment_embedding(segment_ids)  # (batch, length, d_model)
        return self.dropout(self.embedding_norm(x))  # type: ignore[no-any-return]

    def hidden_states(
        self,
        token_ids: Tensor,
        segment_ids: Tensor | None = None,
        num_layers: int | None = None,
    ) -> list[Tensor]:
        """The embeddings and each layer's output, num_layers + 1 of (batch, length, d_model).

        ``token_ids`` (batch, length) are right-padded with ``pad_id``; ``segment_ids``, of the same
        shape, are all 0 by default. ``num_layers`` limits the work to the first layers, 0 to the
        embeddings. What stands at padding is meaningless.
        """
        mask = self.real_tokens(token_ids)[:, None, None, :]  # (batch, 1, 1, length)
        states = [self.embed(token_ids, segment_ids)]
        for block in self.encoder[:num_layers]:
            states.append(block(states[-1], mask)[0])
        states[-1] = self.encoder_norm(states[-1])
        return states

    def forward(self, token_ids: Tensor, segment_ids: Tensor | None = None) -> Tensor:
        """The last hidden state (batch, length, d_model)."""
        return self.hidden_states(token_ids, segment_ids)[-1]

    def pooled(
        self, token_ids: Tensor, pooling: Pooling = "mean", num_layers: int | None = None
    ) -> Tensor:
        """Sentence embeddings (batch, d_model) of ``token_ids`` (batch, length).

        ``num_layers`` is that of `hidden_states`.
        """
        hidden = self.hidden_states(token_ids, num_layers=num_layers)[-1]
        return pool(hidden, self.real_tokens(token_ids), pooling)

    def mask_logits(self, hidden_rows: Tensor) -> Tensor:
        """Vocabulary scores of last hidden states: (rows, d_model) to (rows, vocab_size)."""
        return self.mask_head(hidden_rows, self.embedding.weight)  # type: ignore[no-any-return]
