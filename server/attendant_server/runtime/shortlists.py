"""Shortlists: the target tokens that running sentences may use, as inputs of step graphs.

Each sentence has the shortlist of its source. A step scores the union of its sentences' shortlists,
and a mask restricts each row to its own shortlist. So neighbours do not affect a row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.models import TokenBias


@dataclass(frozen=True, slots=True)
class Listed:
    """The shortlist inputs of one step."""

    token_ids: NDArray[np.int64]  # (listed), sorted
    may_use: NDArray[np.bool_]  # (rows, listed)

    def by_column(self, token_bias: TokenBias) -> TokenBias:
        """``token_bias`` with columns of the list for token ids, without unlisted tokens."""
        (rows, token_ids), values = token_bias.positions.T, token_bias.values
        if not len(values):
            return token_bias
        columns = np.searchsorted(self.token_ids, token_ids)
        is_listed = self.token_ids.take(columns, mode="clip") == token_ids
        return TokenBias(np.stack([rows, columns], axis=1)[is_listed], values[is_listed])


class Shortlists:
    """The shortlist of each slot. Special tokens are on every list."""

    def __init__(self, max_slots: int, width: int, vocab_size: int) -> None:
        """Start without lists, for slots of ``width`` rows."""
        self._may_use = np.zeros((max_slots, vocab_size), dtype=np.bool_)
        self._width = width
        # By the number of slots, until one changes. A cache has always as many candidates.
        self._listed: dict[int, Listed] = {}

    def load(self, slot: int, token_ids: NDArray[np.integer]) -> None:
        """Replace the list of ``slot`` with ``token_ids``, which may repeat."""
        self._may_use[slot] = False
        self._may_use[slot, token_ids] = True
        # Beam search needs at least this many candidates per row.
        self._may_use[slot, : 2 * self._width] = True
        self._listed.clear()

    def move(self, origin: int, slot: int) -> None:
        """Move the list of slot ``origin`` to ``slot``."""
        self._may_use[slot] = self._may_use[origin]
        self._listed.clear()

    def of_first(self, num_slots: int, num_candidates: int = 1) -> Listed:
        """The shortlist inputs for the rows of the first ``num_slots`` slots.

        At least ``num_candidates`` tokens are listed, some of which no row may use.
        """
        listed = self._listed.get(num_slots)
        if listed is None:
            may_use = self._may_use[:num_slots]
            is_listed: NDArray[np.bool_] = np.any(may_use, axis=0)
            if (num_missing := num_candidates - np.count_nonzero(is_listed)) > 0:
                is_listed[np.flatnonzero(~is_listed)[:num_missing]] = True
            token_ids = np.flatnonzero(is_listed)
            of_rows = may_use.take(token_ids, axis=1)  # (slots, listed)
            if self._width > 1:
                of_rows = np.repeat(of_rows, self._width, axis=0)
            listed = self._listed[num_slots] = Listed(token_ids, of_rows)
        return listed
