"""Embeddings as graph nodes. The counterpart of `models.embeddings`."""

from collections.abc import Callable
from dataclasses import dataclass

from attendant.v1.architecture_pb2 import Architecture, Embeddings

from attendant_export.graphs.layers import Layers
from attendant_export.models.embeddings import (
    SINUSOIDS,
    SOURCE,
    EmbeddingNames,
    max_text_tokens,
    target_names,
)

AddPositions = Callable[[str, str], str]
"""Adds vectors of a table (positions, d_model) to rows (rows, d_model)."""


@dataclass(frozen=True, slots=True)
class EmbeddingsOfGraphs:
    """The embeddings of one side of a network, and their parameter names in graphs."""

    part: Embeddings
    names: EmbeddingNames
    norm_epsilon: float
    positions: str
    """Name of the table of position vectors. Empty without positions."""
    reads_token_types: bool = False
    """Whether the types of tokens are an input. Otherwise, all tokens are of type 0."""

    @property
    def folds_token_types(self) -> bool:
        """Whether the table of positions includes the vector of token type 0."""
        return self.positions == f"{self.names.positions}.weight" and not self.reads_token_types

    def run(
        self, g: Layers, token_ids: str, add_positions: AddPositions, token_types: str = ""
    ) -> str:
        """Token ids (rows) to the first layer's input (rows, d_model).

        ``token_types`` (rows) are given if the embeddings read them.
        """
        x = g.embed(token_ids, f"{self.names.tokens}.weight", self.part.scale or 1.0)
        if self.positions:
            x = add_positions(x, self.positions)
        if self.reads_token_types:
            table = g.parameter(f"{self.names.token_types}.weight")
            x = g.op("Add", x, g.op("Gather", table, token_types))
        elif self.part.num_token_types and not self.folds_token_types:
            x = g.op("Add", x, g.parameter(f"{self.names.token_types}.weight"))
        if self.part.has_norm:
            x = g.layer_norm(x, self.names.norm, self.norm_epsilon)
        return g.linear(x, self.names.projection) if self.part.d_embedding else x


def source_embeddings(architecture: Architecture) -> EmbeddingsOfGraphs:
    """The embeddings of the encoder."""
    part = architecture.source_embeddings
    table = _positions(part, SOURCE, "positions")
    reads_types = architecture.HasField("classification_head") and part.num_token_types > 1
    return EmbeddingsOfGraphs(
        part, SOURCE, architecture.encoder.norm_epsilon, table, reads_token_types=reads_types
    )


def target_embeddings(architecture: Architecture) -> EmbeddingsOfGraphs:
    """The embeddings of the decoder. Computed positions equal to the encoder's share its table."""
    part, names = architecture.target_embeddings, target_names(architecture.shares_embeddings)
    is_same = part.positions == architecture.source_embeddings.positions
    table = _positions(part, names, "positions" if is_same else "target_positions")
    return EmbeddingsOfGraphs(part, names, architecture.decoder.norm_epsilon, table)


def _positions(part: Embeddings, names: EmbeddingNames, computed: str) -> str:
    if part.positions.kind in SINUSOIDS:
        return computed
    return "" if max_text_tokens(part.positions) is None else f"{names.positions}.weight"


def add_first_positions(g: Layers, x: str, batch: str, table: str, d_model: int) -> str:
    """Add the vectors of the first positions of ``table`` to each text of ``x`` (rows, d_model).

    ``batch`` holds the shape (batch, length) of the texts.
    """
    length = g.op("Gather", batch, g.integers(1))
    first = g.integers(0)
    positions = g.op("Slice", g.parameter(table), first, length, first)
    return g.rows(g.op("Add", g.by_text(x, batch), positions), d_model)
