"""The attention weights of a model for one text. Knows neither protobuf nor gRPC."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_client.results import CallReport, Token, shortened


@dataclass(frozen=True, slots=True, repr=False)
class Attention:
    """The attention weights of all layers and heads for a text, and for its `target`.

    `encoder`, `decoder` and `cross` have the shape (layers, heads, queries, keys); those of a query
    add up to 1. The queries and keys of `encoder` are `source_tokens`. Query i of `decoder` and of
    `cross` reads `decoder_tokens[i]` and predicts `target_tokens[i]`. The keys of `decoder` are
    `decoder_tokens`, those of `cross` are `source_tokens`. `encoder` is None for a
    recurrent or convolutional encoder, `decoder` for such a decoder, and `cross` for a decoder that
    does not attend to its source. The last two are None for an embedding model, which has no
    target.

    If layers differ in their heads, or some lack a kind of attention, `num_heads` has the heads of
    each layer for each of the three names; other heads have weights of 0.
    """

    source_tokens: tuple[Token, ...]
    target: str
    target_tokens: tuple[Token, ...]
    decoder_tokens: tuple[Token, ...]
    encoder: NDArray[np.float32] | None
    decoder: NDArray[np.float32] | None
    cross: NDArray[np.float32] | None
    num_heads: dict[str, tuple[int, ...]]
    call: CallReport

    def __repr__(self) -> str:
        """The essentials in one line; `dataclasses.asdict` gives everything."""
        shapes = {
            name: found.shape
            for name in ("encoder", "decoder", "cross")
            if (found := getattr(self, name)) is not None
        }
        shown = ", ".join(f"{name}: {shape}" for name, shape in shapes.items())
        return f"Attention({shown}, target={shortened(self.target)})"
