"""Finds repeated texts by their hashes."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def are_first(texts: Iterable[str]) -> NDArray[np.bool_]:
    """Whether each text is the first one with its 64-bit hash, in 24 bytes a text."""
    hashes = np.fromiter(map(_hash, texts), np.uint64)
    found = np.zeros(len(hashes), bool)
    found[np.unique(hashes, return_index=True)[1]] = True
    return found


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
