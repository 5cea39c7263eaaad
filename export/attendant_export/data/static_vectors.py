"""Vectors of tokens for static embeddings: their frequencies, components and weights.

Depends on text and tokenizers, not on models.
"""

from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from attendant_export.data.bad_lines import BadLines
from attendant_export.data.batches import encode
from attendant_export.data.text_files import files_of, numbered_lines

CHUNK_LINES = 10_000
"""Lines that are read at a time."""


def count_tokens(paths: Sequence[Path], tokenizer: Tokenizer, vocab_size: int) -> NDArray[np.int64]:
    """How often each token (vocab_size) occurs in the lines of files and of folders of files.

    ``tokenizer`` adds no special tokens. A tab ends a text, so all sides of pairs count. Raises
    ValueError that lists lines that are not UTF-8, and for files without text; and as
    `numbered_lines`.
    """
    counts, bad_lines = np.zeros(vocab_size, np.int64), BadLines()
    for file in (file for path in paths for file in files_of(path)):
        lines = (line for _, line in numbered_lines(file, bad_lines))
        while chunk := list(islice(lines, CHUNK_LINES)):
            texts = [text for line in chunk for text in line.split("\t")]
            ids = np.fromiter(chain.from_iterable(encode(texts, tokenizer)), np.int64)
            counts += np.bincount(ids, minlength=vocab_size)
    bad_lines.refuse()
    if not counts.any():
        raise ValueError(f"{', '.join(map(str, paths))}: no text")
    return counts


def counted_frequencies(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of each token (tokens) among all; each counts once more than it occurs.

    So a token that no text has is rare, not impossible.
    """
    return np.asarray((counts + 1) / (counts.sum() + len(counts)))


def zipf_frequencies(num_tokens: int) -> NDArray[np.float64]:
    """The share of each of ``num_tokens`` tokens, in proportion to one by its rank (Zipf's law)."""
    shares = 1 / np.arange(1, num_tokens + 1)
    return np.asarray(shares / shares.sum())


def principal_components(
    vectors: NDArray[np.float32], frequencies: NDArray[np.float64], num_components: int
) -> NDArray[np.float32]:
    """The first components (tokens, num_components) of ``vectors`` (tokens, width).

    They are those of a text in which the tokens have ``frequencies`` (tokens): the mean of its
    tokens is 0.
    """
    shares = frequencies.astype(np.float32)[:, None]
    centred = vectors - (shares * vectors).sum(axis=0)
    _, axes = np.linalg.eigh((shares * centred).T.astype(np.float64) @ centred)
    return np.asarray(centred @ axes[:, ::-1][:, :num_components].astype(np.float32))


def sif_weights(frequencies: NDArray[np.float64], coefficient: float) -> NDArray[np.float32]:
    """The weights (tokens) of smooth inverse frequency (Arora et al., 2017), from 0 to 1.

    ``coefficient`` is the frequency of a token with the weight 1/2.
    """
    return np.asarray(coefficient / (coefficient + frequencies), np.float32)
