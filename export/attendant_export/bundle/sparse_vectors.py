"""Sparse vectors in exports and in verifications of bundles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attendant.v1.bundle_pb2 import Manifest, PrecisionParity

from attendant_export.bundle.draft import ROUNDING, rounded
from attendant_export.bundle.json_form import Columns, Form, ListOf, check_form
from attendant_export.models.encoder import Encoder
from attendant_export.verify.bounds import FP32_BOUND, MIN_BOUNDS
from attendant_export.verify.embedding import EmbeddingGraphs, FloatArray
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.sparse_vectors import (
    model_vectors,
    sparse_parity,
    top_tokens,
    vectors_alone,
)

FIELD = "sparse_vectors"
"""Field of reference outputs: for each text, the tokens with the greatest weights."""
BATCHED_BOUNDS = {"fp32": FP32_BOUND, **MIN_BOUNDS}
"""Largest change of a weight when texts share a batch, as a part of the largest weight or of 1."""


class SparseExport:
    """The part of an export that is for sparse vectors."""

    def __init__(self, model: Encoder, texts: Sequence[Sequence[int]]) -> None:
        """Make vectors of the texts, given by their token ids, with the PyTorch model."""
        self._texts, self._expected = texts, model_vectors(model, texts)
        self._found: dict[str, FloatArray] = {}

    def verify(self, graphs: EmbeddingGraphs, parity: PrecisionParity) -> None:
        """Compare graphs with the model and write the agreement into ``parity``.

        Raises ParityError if fp32 differs, or if a result depends on other texts.
        """
        found = self._found[graphs.precision] = vectors_alone(graphs, self._texts)
        agreement = sparse_parity(graphs.precision, found, self._expected)
        parity.sparse_vectors.CopyFrom(agreement)

    def add_reference_outputs(self, outputs: dict[str, Any]) -> None:
        """Add the greatest weights of each precision of the bundle to reference outputs."""
        for precision, content in outputs["outputs"].items():
            content[FIELD] = [_greatest(vector) for vector in self._found[precision]]


def _greatest(vector: FloatArray) -> dict[str, Any]:
    token_ids = top_tokens(vector)
    return {"token_ids": token_ids.tolist(), "weights": rounded(vector[token_ids])}


def check_sparse_form(path: Path, content: dict[str, Any], manifest: Manifest) -> None:
    """Raise BundleError for sparse vectors of another form in reference outputs."""
    token_ids = ListOf(range(manifest.architecture.source_embeddings.vocab_size))
    vector = Columns({"token_ids": token_ids, "weights": ListOf(float)})
    vectors: list[Form] = [vector] * len(content["texts"])
    check_form(path, content, {"outputs": {p.name: {FIELD: vectors} for p in manifest.precisions}})


def check_sparse_vectors(
    graphs: EmbeddingGraphs, texts: Sequence[Sequence[int]], stored: Sequence[dict[str, Any]]
) -> str:
    """Make the vectors of the reference texts again, in one batch; describes the comparison.

    Raises ParityError for other weights, or if tokens that are not stored have greater ones.
    """
    found, moved, largest = graphs.sparse_vectors(texts), 0.0, 1.0
    for vector, expected in zip(found, stored, strict=True):
        weights = np.array(expected["weights"], np.float32)
        differences = np.abs(vector[expected["token_ids"]] - weights)
        above = np.delete(vector, expected["token_ids"]).max(initial=0.0) - weights.min()
        moved = max(moved, float(differences.max()), float(above))
        largest = max(largest, float(weights.max()))
    bound = BATCHED_BOUNDS[graphs.precision] * largest
    if not (moved <= bound + ROUNDING):
        raise ParityError(
            f"{graphs.precision}: weights of sparse vectors differ by {moved:.2g}; the bound is "
            f"{bound:.2g}"
        )
    return f"greatest weights of {len(found)} sparse vectors within {bound:.2g}"
