"""The loop that one writes on an afternoon: PyTorch's own layers, the same sizes and batches.

What the trainer of this repository is measured against; written without it.
"""

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PAD, BOS = 0, 1
"""Ids of the built-in translation model."""

Pair = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a Transformer with pre-norm and one embedding for source, target and output."""

    vocab_size: int = 8000
    d_model: int = 256
    num_heads: int = 8
    d_feed_forward: int = 1024
    num_encoder_layers: int = 6
    num_decoder_layers: int = 2


class PlainTransformer(nn.Module):
    """`nn.TransformerEncoder` and `nn.TransformerDecoder` between one tied embedding."""

    def __init__(self, sizes: Sizes, dropout: float = 0.1, max_length: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.vocab_size, sizes.d_model, padding_idx=PAD)
        self.position = nn.Embedding(max_length, sizes.d_model)
        self.dropout = nn.Dropout(dropout)
        common = (sizes.d_model, sizes.num_heads, sizes.d_feed_forward, dropout)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*common, batch_first=True, norm_first=True),
            sizes.num_encoder_layers,
            nn.LayerNorm(sizes.d_model),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(*common, batch_first=True, norm_first=True),
            sizes.num_decoder_layers,
            nn.LayerNorm(sizes.d_model),
        )
        nn.init.normal_(self.embedding.weight, std=sizes.d_model**-0.5)

    def embed(self, ids: Tensor) -> Tensor:
        """Scaled embeddings with positions (batch, length, d_model)."""
        scaled = self.embedding(ids) * math.sqrt(self.embedding.embedding_dim)
        embedded: Tensor = self.dropout(scaled + self.position.weight[: ids.shape[1]])
        return embedded

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits (batch, target, vocab)."""
        is_padding = source == PAD
        memory = self.encoder(self.embed(source), src_key_padding_mask=is_padding)
        hidden = self.decoder(
            self.embed(target),
            memory,
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(target.shape[1]),
            tgt_is_causal=True,
            memory_key_padding_mask=is_padding,
        )
        logits: Tensor = hidden @ self.embedding.weight.T
        return logits


def batches(pairs: Sequence[Pair], max_batch_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Padded batches of similar length, in random order: the same rule as the trainer's."""
    order = sorted(pairs, key=lambda pair: max(map(len, pair)))
    cut: list[list[Pair]] = [[]]
    for pair in order:
        if max(map(len, pair)) * (len(cut[-1]) + 1) > max_batch_tokens:
            cut.append([])
        cut[-1].append(pair)
    random.Random(1).shuffle(cut)
    for batch in cut:
        sources = [torch.tensor(source) for source, _ in batch]
        targets = [torch.tensor([BOS, *target]) for _, target in batch]
        yield (
            nn.utils.rnn.pad_sequence(sources, batch_first=True, padding_value=PAD),
            nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=PAD),
        )


def train_plainly(sizes: Sizes, pairs: Sequence[Pair], max_batch_tokens: int) -> float:
    """Train a new model for one epoch; seconds from the first batch to the last."""
    model = PlainTransformer(sizes).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=0.1)
    started = time.monotonic()
    for source, target in batches(pairs, max_batch_tokens):
        logits = model(source, target[:, :-1])
        loss = criterion(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return time.monotonic() - started
