"""Rotary positions and local attention of whole texts as graph nodes."""

import numpy as np
from attendant.v1.architecture_pb2 import Attention

from attendant_export.graphs.builder import MICROSOFT
from attendant_export.graphs.layers import Layers
from attendant_export.models.rotary_positions import rotation_rates


class TextPositions:
    """The values that layers compute from the positions of tokens, each computed once."""

    def __init__(self, g: Layers, batch: str) -> None:
        """``batch`` holds the shape (batch, length) of the texts."""
        self._g, self._batch = g, batch
        self._rotations: dict[bytes, tuple[str, str]] = {}
        self._windows: dict[int, str] = {}

    def rotate(self, part: Attention, x: str) -> str:
        """Queries or keys ``x`` (batch, length, inner), rotated if ``part`` has rotary positions.

        The counterpart of `models.rotary_positions.rotate`.
        """
        if not part.HasField("rotary_positions"):
            return x
        rates = rotation_rates(part).numpy()
        key = rates.tobytes()
        if key not in self._rotations:
            self._rotations[key] = self._angles(rates)
        inputs = (x, self._g.integers(0), *self._rotations[key])
        return self._g.op("RotaryEmbedding", *inputs, domain=MICROSOFT, num_heads=part.num_heads)

    def bias(self, part: Attention, bias: str) -> str:
        """``bias`` of scores, or "", with the lowest value for tokens outside of the window."""
        if not part.window:
            return bias
        if part.window not in self._windows:
            self._windows[part.window] = self._window(part.window)
        mask = self._windows[part.window]
        return self._g.op("Add", bias, mask) if bias else mask

    def _angles(self, rates: np.ndarray) -> tuple[str, str]:
        """Cosines and sines (length, head_dim / 2), computed in fp32."""
        g = self._g
        positions = g.cast(g.op("Unsqueeze", g.positions(self._batch), g.integers(1)), np.float32)
        angles = g.op("Mul", positions, g.constant(rates))
        cosines, sines = (g.op(name, angles) for name in ("Cos", "Sin"))
        if g.dtype == np.float32:
            return cosines, sines
        return g.cast(cosines, g.dtype), g.cast(sines, g.dtype)

    def _window(self, window: int) -> str:
        """What is added to the scores (length, length) of pairs of tokens."""
        g = self._g
        keys = g.positions(self._batch)
        queries = g.op("Unsqueeze", keys, g.integers(1))
        distances = g.op("Abs", g.op("Sub", keys, queries))
        is_far = g.op("Greater", distances, g.integer(window))
        return g.op("Where", is_far, g.scalar(float(np.finfo(g.dtype).min)), g.scalar(0))
