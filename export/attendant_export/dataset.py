"""Parallel and plain text as batches of token ids. Knows files and tokenizers, not models."""

import gzip
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 text file, gzipped if its name ends in ``.gz``, without line ends."""
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open()
    with opened as file:
        for line in file:
            yield line.rstrip("\r\n")


def read_pairs(path: Path, swap: bool = False) -> list[tuple[str, str]]:
    """Pairs of a file with ``source<TAB>target`` lines; ``swap`` gives (target, source).

    Raises ValueError naming the line that has not exactly two non-empty columns.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) != 2 or not all(columns):
            raise ValueError(f"{path}:{number}: want two tab-separated texts, got {len(columns)}")
        pairs.append((columns[1], columns[0]) if swap else (columns[0], columns[1]))
    return pairs


def group_references(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """All targets of each source, in order of first appearance."""
    references: dict[str, list[str]] = {}
    for source, target in pairs:
        references.setdefault(source, []).append(target)
    return references


def pad(sequences: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """Right-pad token ids to one (batch, longest) tensor."""
    longest = max(map(len, sequences))
    return torch.tensor([[*ids, *[pad_id] * (longest - len(ids))] for ids in sequences])


def group_by_tokens(
    lengths: Sequence[int], max_batch_tokens: int, order: np.ndarray
) -> list[list[int]]:
    """Indices in ``order``, cut so that no batch exceeds ``max_batch_tokens`` when padded.

    A single sequence longer than the limit makes a batch of its own.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in order.tolist():
        longest = max(longest, lengths[index])
        if not batches or longest * (len(batches[-1]) + 1) > max_batch_tokens:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches


def shuffled_batches(
    lengths: Sequence[int], max_batch_tokens: int, rng: np.random.Generator
) -> list[list[int]]:
    """Batches of similar length, ties and the order of the batches at random."""
    order = np.lexsort((rng.random(len(lengths)), lengths))
    batches = group_by_tokens(lengths, max_batch_tokens, order)
    return [batches[i] for i in rng.permutation(len(batches))]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """One teacher-forcing batch, right-padded."""

    source: Tensor  # (batch, source) ending with the end token
    target_in: Tensor  # (batch, target) beginning with the begin token
    target_out: Tensor  # (batch, target) ending with the end token

    def to(self, device: torch.device) -> "PairBatch":
        """The same batch on ``device``."""
        return PairBatch(*(t.to(device) for t in (self.source, self.target_in, self.target_out)))


class PairDataset:
    """Encoded sentence pairs, batched by padded token count."""

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        tokenizer: Tokenizer,
        max_tokens: int = 128,
    ) -> None:
        """Encode ``pairs``; those with more than ``max_tokens`` on a side are left out."""
        sources = [e.ids for e in tokenizer.encode_batch([s for s, _ in pairs])]
        targets = [e.ids for e in tokenizer.encode_batch([t for _, t in pairs])]
        self.examples = [
            (s, t)
            for s, t in zip(sources, targets, strict=True)
            if len(s) <= max_tokens and len(t) <= max_tokens
        ]
        self.num_left_out = len(pairs) - len(self.examples)
        self._lengths = [max(len(s), len(t)) for s, t in self.examples]
        self._pad_id = tokenizer.token_to_id("<pad>")
        self._bos_id = tokenizer.token_to_id("<s>")

    def __len__(self) -> int:
        return len(self.examples)

    def batches(self, max_batch_tokens: int, rng: np.random.Generator) -> Iterator[PairBatch]:
        """One epoch of batches in random order."""
        for indices in shuffled_batches(self._lengths, max_batch_tokens, rng):
            sources, targets = zip(*(self.examples[i] for i in indices), strict=True)
            target_out = pad(targets, self._pad_id)
            begin = torch.full((len(indices), 1), self._bos_id)
            target_in = torch.cat([begin, target_out[:, :-1]], dim=1)
            yield PairBatch(pad(sources, self._pad_id), target_in, target_out)
