"""Token ids of several texts as one padded array."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.calls import TokenIds


def pad(sequences: Sequence[TokenIds], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Right-padded token ids (batch, longest) and their lengths (batch)."""
    lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
    padded = np.full((len(sequences), int(lengths.max())), pad_id, dtype=np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return padded, lengths
