"""An epoch of training as in PyTorch's tutorial: `torch.nn.Transformer`, padded random batches.

    python -m bench.rivals.plain_training TRAIN.tsv TOKENIZER.json

Prints the seconds of the epoch. The model has the sizes of the built-in one, and one embedding for
source, target and output. There is nothing of what makes a training faster: no batches of similar
lengths, no scores of real tokens only, no bfloat16, no choice of threads.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

D_MODEL, NUM_HEADS, D_FEED_FORWARD, NUM_LAYERS = 256, 8, 1024, (6, 2)
BATCH_SIZE = 128
PAD, BOS, EOS = 0, 1, 2
MAX_POSITIONS = 512


class PlainTransformer(nn.Module):
    """An encoder–decoder Transformer with sinusoidal positions and shared embeddings."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        encoder_layers, decoder_layers = NUM_LAYERS
        self.embedding = nn.Embedding(vocab_size, D_MODEL, padding_idx=PAD)
        self.transformer = nn.Transformer(
            D_MODEL,
            NUM_HEADS,
            encoder_layers,
            decoder_layers,
            D_FEED_FORWARD,
            batch_first=True,
        )
        self.register_buffer("positions", _positions(), persistent=False)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits (batch, target, vocabulary) after each token of ``target``."""
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=torch.bool)
        hidden: Tensor = self.transformer(
            self._embedded(source),
            self._embedded(target),
            tgt_mask=mask,
            src_key_padding_mask=source == PAD,
            tgt_key_padding_mask=target == PAD,
            memory_key_padding_mask=source == PAD,
            tgt_is_causal=True,
        )
        return nn.functional.linear(hidden, self.embedding.weight)

    def _embedded(self, tokens: Tensor) -> Tensor:
        positions = self.get_buffer("positions")[: tokens.shape[1]]
        embedded: Tensor = self.embedding(tokens) * math.sqrt(D_MODEL)
        return embedded + positions


def _positions() -> Tensor:
    """Sinusoidal position encodings (Vaswani et al. 2017, section 3.5)."""
    places = torch.arange(MAX_POSITIONS).unsqueeze(1)
    rates = torch.exp(torch.arange(0, D_MODEL, 2) * (-math.log(10_000) / D_MODEL))
    return torch.cat([torch.sin(places * rates), torch.cos(places * rates)], dim=1)


def read_pairs(train: Path, tokenizer: Tokenizer) -> list[tuple[Tensor, Tensor]]:
    """The tokens of all pairs, each side with its begin and end tokens."""
    lines = train.read_text(encoding="utf-8").splitlines()
    sides = zip(*(line.split("\t") for line in lines), strict=True)
    encoded = [tokenizer.encode_batch_fast(list(side), add_special_tokens=False) for side in sides]
    sources, targets = ([torch.tensor([BOS, *e.ids, EOS]) for e in side] for side in encoded)
    return list(zip(sources, targets, strict=True))


def batches(pairs: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """All pairs in random order, padded to the longest of each batch."""
    shuffled = random.Random(1).sample(pairs, len(pairs))
    for first in range(0, len(shuffled), BATCH_SIZE):
        sources, targets = zip(*shuffled[first : first + BATCH_SIZE], strict=True)
        yield (
            pad_sequence(list(sources), batch_first=True, padding_value=PAD),
            pad_sequence(list(targets), batch_first=True, padding_value=PAD),
        )


def train(pairs: Sequence[tuple[Tensor, Tensor]], vocab_size: int) -> float:
    """Train for one epoch; returns its seconds."""
    model = PlainTransformer(vocab_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
    criterion = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=0.1)
    started = time.perf_counter()
    for source, target in batches(pairs):
        logits = model(source, target[:, :-1])
        loss = criterion(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    """Train and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("tokenizer", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    pairs = read_pairs(arguments.train, tokenizer)
    print(train(pairs, tokenizer.get_vocab_size()))


if __name__ == "__main__":
    main()
