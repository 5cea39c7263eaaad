"""The values that a token rule adds to the log-probabilities of one row."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FAVOUR = 1e4
"""More than the difference of any two log-probabilities, and in the range of fp16."""


@dataclass(frozen=True, slots=True, eq=False)
class RowBias:
    """Values for some tokens, finite or minus infinity. A step adds the biases of all its rows."""

    token_ids: NDArray[np.int64]  # (biased)
    values: NDArray[np.float32]  # (biased)

    @classmethod
    def forbidding(cls, token_ids: Collection[int]) -> "RowBias":
        """A bias of minus infinity for these tokens."""
        num_tokens = len(token_ids)
        return cls(
            np.fromiter(token_ids, np.int64, num_tokens), np.full(num_tokens, -np.inf, np.float32)
        )

    @classmethod
    def favouring(cls, token_id: int, value: float = _FAVOUR) -> "RowBias":
        """A bias for this token, which by default makes it likelier than all others."""
        return cls(np.array([token_id]), np.array([value], np.float32))
