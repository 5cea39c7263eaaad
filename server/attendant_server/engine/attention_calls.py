"""Calls for the attention weights of models, and their results."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_server.engine.calls import Call, TokenIds
from attendant_server.engine.pair_calls import PairCall


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The weights of one kind of attention."""

    weights: NDArray[np.float32]  # (layers, heads, queries, keys)
    """0 for heads that a layer lacks."""
    num_heads: tuple[int, ...]
    """The number of heads of each layer; 0 for a layer without this attention."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention weights of one text, or of a source and its target."""

    encoder: LayerWeights | None
    """None for an encoder without self-attention."""
    decoder: LayerWeights | None = None
    """None for a text, and for a decoder without self-attention."""
    cross: LayerWeights | None = None
    """None for a text, and for a decoder that does not attend to its source."""

    @property
    def kinds(self) -> list[LayerWeights]:
        """The kinds of attention that there are."""
        kinds = (self.encoder, self.decoder, self.cross)
        return [kind for kind in kinds if kind is not None]

    @property
    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinity."""
        return all(bool(np.isfinite(kind.weights).all()) for kind in self.kinds)


class AttendPairCall(PairCall[Attention]):
    """Return the attention weights of pairs, each of which is run alone."""


class AttendTextCall(Call[Attention]):
    """Return the attention weights of texts (token ids), each of which is run alone."""

    def __init__(self, texts: Sequence[TokenIds], deadline: float | None = None) -> None:
        super().__init__(len(texts), deadline)
        self.texts = texts
