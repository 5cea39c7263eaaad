"""Parallel and plain text as batches of token ids. Knows files and tokenizers, not models."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor


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


def num_batches(lengths: Sequence[int], max_batch_tokens: int) -> int:
    """How many batches `shuffled_batches` makes: always as many, as only ties change places."""
    return len(group_by_tokens(lengths, max_batch_tokens, np.argsort(lengths)))


def shuffled_batches(
    lengths: Sequence[int], max_batch_tokens: int, rng: np.random.Generator
) -> list[list[int]]:
    """Batches of similar length, ties and the order of the batches at random."""
    order = np.lexsort((rng.random(len(lengths)), np.asarray(lengths)))
    batches = group_by_tokens(lengths, max_batch_tokens, order)
    return [batches[i] for i in rng.permutation(len(batches))]


def encode(texts: Sequence[str], tokenizer: Tokenizer, chunk: int = 10_000) -> Iterator[list[int]]:
    """Token ids of each text; the encodings, bulky, are held for ``chunk`` texts at once."""
    for begin in range(0, len(texts), chunk):
        for encoding in tokenizer.encode_batch(texts[begin : begin + chunk]):
            yield encoding.ids


def encode_in_pieces(
    texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int
) -> list[np.ndarray]:
    """Token ids of ``texts``, cut so that no piece exceeds ``max_tokens``.

    Each piece has the first and last special token of the encoding, [CLS] and [SEP].
    """
    room = max_tokens - 2
    return [
        np.array([first, *ids[start : start + room], last], dtype=np.int32)
        for first, *ids, last in encode(texts, tokenizer)
        for start in range(0, len(ids), room)
    ]


def encode_whole(texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> list[np.ndarray]:
    """Token ids of each text; one over ``max_tokens`` loses the end before its [SEP]."""
    return [
        np.array([*ids[:-1][: max_tokens - 1], ids[-1]], dtype=np.int32)
        for ids in encode(texts, tokenizer)
    ]


def pad_arrays(sequences: Sequence[np.ndarray], pad_id: int) -> Tensor:
    """`pad` for sequences that are kept as arrays."""
    return pad([ids.tolist() for ids in sequences], pad_id)
