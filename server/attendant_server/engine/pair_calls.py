"""Calls about given translations: pairs of a source and a target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.calls import Call, Result, TokenIds

AttentionWeights: TypeAlias = NDArray[np.float32]
"""The weights (target, source) by which target tokens attend to source tokens."""


@dataclass(frozen=True, slots=True)
class TargetScore:
    """Log-probability of each target token, the end token's last."""

    log_probabilities: NDArray[np.float32]  # (target,)


class PairCall(Call[Result]):
    """A call about (source, target) pairs of token ids, both ending with the end token."""

    def __init__(
        self, pairs: Sequence[tuple[TokenIds, TokenIds]], deadline: float | None = None
    ) -> None:
        super().__init__(len(pairs), deadline)
        self.pairs = pairs


class ScoreCall(PairCall[TargetScore]):
    """Score pairs."""


class AlignCall(PairCall[AttentionWeights]):
    """Align the tokens of pairs. The model must have an aligner."""
