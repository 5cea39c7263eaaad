"""Sentence pairs as batches for teacher forcing, drawn from mapped files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attendant_export.data.augmentation import NO_AUGMENTATION, Augmentation
from attendant_export.data.batches import group_by_tokens, pad, shuffled_batches, split_ascending
from attendant_export.data.mixtures import draw_rows
from attendant_export.data.pair_texts import BLOCK_PAIRS
from attendant_export.data.pair_tokenizer import NO_MARKS, Marks, PairTokenizer
from attendant_export.data.pair_tokens import EncodedPairs, TokenPairs
from attendant_export.data.sequences import Sequences, join_sequences

CHUNK_PAIRS = 1 << 19
"""The most pairs that are sorted by length at once."""
ALL_ROWS = slice(None)


@dataclass(frozen=True, slots=True)
class PairBatch:
    """A right-padded teacher-forcing batch, or one process's share of its rows."""

    source: Tensor  # (batch, source) ending with the end token
    target_in: Tensor  # (batch, target) beginning with the begin token
    target_out: Tensor  # (batch, target) ending with the end token
    num_targets: int  # real tokens in ``target_out`` of the whole batch, not of the share

    def to(self, device: torch.device) -> "PairBatch":
        """The batch on ``device``."""
        tensors = (self.source, self.target_in, self.target_out)
        source, target_in, target_out = (tensor.to(device) for tensor in tensors)
        return PairBatch(source, target_in, target_out, self.num_targets)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Pairs of several collections that are sorted by length and batched together."""

    collections: Sequence[TokenPairs]
    collection: NDArray[np.int32]  # (pairs), the index of the collection of each pair
    row: NDArray[np.int64]  # (pairs), its row in the collection

    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of the longer side of each pair."""
        lengths = np.empty(len(self.row), np.int64)
        for number, collection in enumerate(self.collections):
            at = np.flatnonzero(self.collection == number)
            lengths[at] = collection.lengths(self.row[at])
        return lengths

    def select(self, pairs: NDArray[np.int64]) -> "_Chunk":
        """Some of the pairs."""
        return _Chunk(self.collections, self.collection[pairs], self.row[pairs])


class PairDataset:
    """Encoded sentence pairs of several files, in batches of a limited number of padded tokens.

    An epoch has ``nums_in_epoch`` pairs of each of the ``parts``: all of them as often as possible,
    and a random sample for the rest.
    """

    def __init__(
        self,
        parts: Sequence[EncodedPairs],
        nums_in_epoch: Sequence[int],
        tokenizer: PairTokenizer,
        max_tokens: int = 128,
        chunk_pairs: int = CHUNK_PAIRS,
    ) -> None:
        """At most ``chunk_pairs`` are sorted by length at once.

        A pair stays as it is if a side of its changed copy has more than ``max_tokens``.
        """
        self.parts, self._nums_in_epoch = parts, nums_in_epoch
        self._tokenizer, self._max_tokens, self._chunk_pairs = tokenizer, max_tokens, chunk_pairs
        self._first_rows = np.cumsum([0, *map(len, parts)])[:-1]  # of each part, among all pairs

    def __len__(self) -> int:
        """The number of pairs of an epoch."""
        return sum(self._nums_in_epoch)

    def num_batches(self, max_batch_tokens: int) -> int:
        """The number of batches of an epoch without augmentation, which changes lengths.

        Exact for an epoch of one chunk without samples, otherwise estimated from some of its pairs.
        """
        rows = self._epoch_rows(np.random.default_rng(0))
        some = rows[:: -(-len(rows) // self._chunk_pairs) or 1]
        lengths = np.sort(self._chunk(some).lengths())
        return round(
            len(split_ascending(lengths, max_batch_tokens)) * len(rows) / max(1, len(some))
        )

    def batches(
        self,
        max_batch_tokens: int,
        rng: np.random.Generator,
        augmentation: Augmentation = NO_AUGMENTATION,
        share: slice = ALL_ROWS,
    ) -> Iterator[PairBatch]:
        """One epoch of batches in random order, with ``augmentation`` drawn anew.

        Reads and yields only the rows ``share`` of each batch.
        """
        rows = self._epoch_rows(rng)
        starts = range(0, len(rows), self._chunk_pairs)
        if len(starts) > 1:
            rng.shuffle(rows)
        for start in starts:
            chunk = self._chunk(rows[start : start + self._chunk_pairs])
            if augmentation:
                chunk = self._changed(chunk, augmentation, rng)
            for pairs in shuffled_batches(chunk.lengths(), max_batch_tokens, rng):
                yield self._batch(chunk.select(pairs), share)

    def _epoch_rows(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The pairs of an epoch, as rows among all pairs of the parts."""
        parts = zip(self.parts, self._nums_in_epoch, self._first_rows.tolist(), strict=True)
        rows = [start + draw_rows(len(part), num, rng) for part, num, start in parts]
        return np.concatenate([np.empty(0, np.int64), *rows])

    def _chunk(self, rows: NDArray[np.int64]) -> _Chunk:
        part = (np.searchsorted(self._first_rows, rows, side="right") - 1).astype(np.int32)
        tokens = [part.tokens for part in self.parts]
        return _Chunk(tokens, part, rows - self._first_rows[part])

    def _changed(
        self, chunk: _Chunk, augmentation: Augmentation, rng: np.random.Generator
    ) -> _Chunk:
        """The chunk with changed pairs in place of theirs, except those that are too long."""
        changes = augmentation.changed(_ChunkTexts(self.parts, chunk), rng)
        collections = list(chunk.collections)
        collection, row = chunk.collection.copy(), chunk.row.copy()
        dtype = self._tokenizer.token_type
        while block := list(islice(changes, BLOCK_PAIRS)):
            marks = [self.parts[int(chunk.collection[index])].marks for index, _ in block]
            sides = self._tokenizer.encode([pair for _, pair in block], marks)
            tokens = TokenPairs(*(join_sequences(side, dtype) for side in sides))
            fitting = np.flatnonzero(tokens.lengths(np.arange(len(block))) <= self._max_tokens)
            at = np.array([index for index, _ in block])[fitting]
            collection[at], row[at] = len(collections), fitting
            collections.append(tokens)
        return _Chunk(collections, collection, row)

    def _batch(self, pairs: _Chunk, share: slice) -> PairBatch:
        used = np.unique(pairs.collection).tolist()
        sources = [(i, pairs.collections[i].source) for i in used]
        source, _ = self._padded(pairs, sources, share, self._tokenizer.source.pad_id)
        targets = [(i, pairs.collections[i].target) for i in used]
        target_out, num_targets = self._padded(pairs, targets, share, self._tokenizer.target.pad_id)
        target_in = _shifted(target_out, self._tokenizer.start_id)
        return PairBatch(source, target_in, target_out, num_targets)

    def _padded(
        self, pairs: _Chunk, sides: list[tuple[int, Sequences]], share: slice, pad_id: int
    ) -> tuple[Tensor, int]:
        """The rows ``share`` of one side, as wide as the whole batch, and all its real tokens."""
        lengths = np.empty(len(pairs.row), np.int64)
        for number, sequences in sides:
            at = np.flatnonzero(pairs.collection == number)
            lengths[at] = sequences.lengths(pairs.row[at])
        own = pairs.select(np.arange(len(lengths))[share])
        padded = np.full((len(own.row), lengths.max()), pad_id, np.int64)
        for number, sequences in sides:
            at = np.flatnonzero(own.collection == number)
            padded[at] = sequences.padded(own.row[at], padded.shape[1], pad_id)
        return torch.from_numpy(padded), int(lengths.sum())


@dataclass(frozen=True, slots=True)
class _ChunkTexts:
    """The text of the pairs of an unchanged chunk."""

    parts: Sequence[EncodedPairs]
    chunk: _Chunk

    def __len__(self) -> int:
        return len(self.chunk.row)

    def __getitem__(self, index: int, /) -> tuple[str, str]:
        part = self.parts[int(self.chunk.collection[index])]
        return part.text(int(self.chunk.row[index]))


def batches_of(
    pairs: Sequence[tuple[str, str]],
    tokenizer: PairTokenizer,
    max_batch_tokens: int,
    marks: Marks = NO_MARKS,
) -> Iterator[PairBatch]:
    """All of ``pairs`` in memory, with ``marks``, in batches of similar length."""
    sources, targets = tokenizer.encode(pairs, [marks] * len(pairs))
    lengths = [
        max(len(source), len(target)) for source, target in zip(sources, targets, strict=True)
    ]
    for rows in group_by_tokens(lengths, max_batch_tokens, np.argsort(lengths)):
        source = pad([sources[i] for i in rows], tokenizer.source.pad_id)
        target_out = pad([targets[i] for i in rows], tokenizer.target.pad_id)
        num_targets = sum(len(targets[i]) for i in rows)
        target_in = _shifted(target_out, tokenizer.start_id)
        yield PairBatch(source, target_in, target_out, num_targets)


def _shifted(target_out: Tensor, start_id: int) -> Tensor:
    """What the decoder reads to predict ``target_out`` (batch, target)."""
    begin = torch.full((len(target_out), 1), start_id)
    return torch.cat([begin, target_out[:, :-1]], dim=1)
