"""Text as batches of token ids. Depends on files and tokenizers, not on models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor


def pad(sequences: Sequence[Sequence[int] | np.ndarray], pad_id: int) -> Tensor:
    """Right-pad token ids to one int64 tensor (batch, longest)."""
    padded = np.full((len(sequences), max(map(len, sequences))), pad_id, np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(padded)


def group_by_tokens(
    lengths: Sequence[int], max_batch_tokens: int, order: np.ndarray
) -> list[list[int]]:
    """Split the indices in ``order`` into batches of at most ``max_batch_tokens`` padded tokens.

    A sequence longer than the limit is a batch of its own.
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
    """The number of batches of `shuffled_batches`, which is the same for every shuffle."""
    return len(split_ascending(np.sort(lengths), max_batch_tokens))


def shuffled_batches(
    lengths: Sequence[int] | np.ndarray, max_batch_tokens: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """The indices of batches of similar length, in random order; ties in length are shuffled too.

    A sequence longer than ``max_batch_tokens`` is a batch of its own.
    """
    lengths = np.asarray(lengths)
    order = np.lexsort((rng.random(len(lengths)), lengths))
    ranges = split_ascending(lengths[order], max_batch_tokens)
    for number in rng.permutation(len(ranges)):
        start, end = ranges[number]
        yield order[start:end]


def split_ascending(lengths: np.ndarray, max_batch_tokens: int) -> list[tuple[int, int]]:
    """The batches of `group_by_tokens` for ascending lengths, as ranges (start, end) of indices."""
    ranges = [(0, 0)]
    while (start := ranges[-1][1]) < len(lengths):
        most = max_batch_tokens // int(lengths[start])
        longest = lengths[start : start + most]
        num_fitting = np.searchsorted(
            longest * np.arange(1, len(longest) + 1), max_batch_tokens, side="right"
        )
        ranges.append((start, start + max(1, int(num_fitting))))
    return ranges[1:]


@contextmanager
def special_tokens_as_text(tokenizer: Tokenizer) -> Iterator[None]:
    """Let the tokenizer read the name of a special token in a text as text, as the server does."""
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        yield
    finally:
        tokenizer.encode_special_tokens = before


def encode(texts: Sequence[str], tokenizer: Tokenizer, chunk: int = 10_000) -> Iterator[list[int]]:
    """Token ids of each text. Encodes ``chunk`` texts at a time to limit memory.

    The name of a special token, such as ``</s>``, is read as text.
    """
    for begin in range(0, len(texts), chunk):
        with special_tokens_as_text(tokenizer):
            encodings = tokenizer.encode_batch_fast(texts[begin : begin + chunk])
        for encoding in encodings:
            yield encoding.ids


def encode_in_pieces(
    texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int
) -> list[np.ndarray]:
    """Token ids of ``texts``, split into pieces of at most ``max_tokens``.

    Each piece starts and ends with the special tokens of the encoding, [CLS] and [SEP].
    """
    room = max_tokens - 2
    return [
        np.array([first, *ids[start : start + room], last], dtype=np.int32)
        for first, *ids, last in encode(texts, tokenizer)
        for start in range(0, len(ids), room)
    ]


def encode_whole(texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> list[np.ndarray]:
    """Token ids of each text, `truncated` to ``max_tokens``."""
    return [
        np.array(truncated(ids, max_tokens), dtype=np.int32) for ids in encode(texts, tokenizer)
    ]


def truncated(token_ids: Sequence[int], max_tokens: int) -> list[int]:
    """The first ``max_tokens`` of a text; the last one is kept, which may end every text."""
    return [*token_ids[:-1][: max_tokens - 1], *token_ids[-1:]]
