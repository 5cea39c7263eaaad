"""The aligner of a translation model: its graph, and the heads whose weights align tokens."""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from attendant_manifest.sizes import num_source_heads
from numpy.typing import NDArray

from attendant_server.engine.pair_calls import AttentionWeights
from attendant_server.runtime.model_graphs import CountedGraph

if TYPE_CHECKING:
    from attendant_server.bundles import Bundle

ALIGNMENT = "alignment"
"""The output of an aligner."""
TOLERANCE = 0.02
"""Allowed difference of the sum of the weights of a token from 1."""


class Aligner:
    """The aligner graph of a bundle."""

    def __init__(self, graph: CountedGraph, bundle: "Bundle") -> None:
        self.graph = graph
        manifest = bundle.manifest
        self._uses_reading_positions = manifest.alignment.uses_reading_positions
        num_heads = [
            num_source_heads(group)
            for group in manifest.architecture.decoder.groups
            for _ in range(group.num_layers)
        ]
        firsts = [0, *accumulate(num_heads)]
        self.head_weights: NDArray[np.float32] = np.zeros(firsts[-1], np.float32)
        """The input of the graph that averages the heads of the manifest."""
        for head in manifest.alignment.heads:
            self.head_weights[firsts[head.layer] + head.head] = 1 / len(manifest.alignment.heads)

    def of_tokens(self, weights: AttentionWeights) -> AttentionWeights:
        """The weights of each target token, from those of each position (target, source)."""
        if not self._uses_reading_positions:
            return weights.copy()
        moved = np.zeros_like(weights)
        moved[:-1] = weights[1:]
        return moved

    def check(self, found: Sequence[AttentionWeights]) -> None:
        """Raise ValueError unless the weights of the first token of each pair add up to 1."""
        for weights in found:
            if not abs(float(weights[0].sum()) - 1) <= TOLERANCE:
                raise ValueError("aligner: the weights of a token do not add up to 1")
