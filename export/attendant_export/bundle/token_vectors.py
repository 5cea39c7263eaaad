"""Vectors of tokens in reference outputs and in verifications of bundles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attendant.v1.bundle_pb2 import Manifest
from attendant_manifest.sizes import token_dimension

from attendant_export.bundle.draft import ROUNDING, rounded
from attendant_export.bundle.json_form import Form, check_form
from attendant_export.bundle.reference_outputs import NUM_COMPONENTS
from attendant_export.graphs.token_vectors import TOKEN_VECTORS
from attendant_export.verify.bounds import largest
from attendant_export.verify.embedding import EmbeddingGraphs, FloatArray
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.token_vectors import MIN_BATCHED_COSINE


def mean_vectors(graphs: EmbeddingGraphs, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """The first components of the mean of each text's vectors, for reference outputs."""
    return [rounded(mean) for mean in _means(graphs, texts)]


def check_token_vectors(
    path: Path,
    content: dict[str, Any],
    manifest: Manifest,
    graphs: EmbeddingGraphs,
    texts: Sequence[Sequence[int]],
) -> str:
    """Compute the means again; returns a description of the comparison.

    ``content`` is that of the reference outputs in ``path``. Raises BundleError that names a fault
    of the content, and ParityError for other vectors.
    """
    vector: list[Form] = [float] * min(NUM_COMPONENTS, token_dimension(manifest.architecture))
    stored: Form = {TOKEN_VECTORS: [vector] * len(texts)}
    check_form(path, content, {"outputs": {graphs.precision: stored}})
    expected = np.array(content["outputs"][graphs.precision][TOKEN_VECTORS])
    moved = largest(np.linalg.norm(_means(graphs, texts) - expected, axis=1))
    # The distance between two vectors of length 1 with this cosine.
    bound = float(np.sqrt(2 * (1 - MIN_BATCHED_COSINE[graphs.precision])))
    if not (moved <= bound + ROUNDING):
        raise ParityError(
            f"{graphs.precision}: reference vectors of tokens differ by {moved:.2g}; the bound is "
            f"{bound:.2g}"
        )
    return f"means of vectors of tokens of {len(texts)} texts within {bound:.2g}"


def _means(graphs: EmbeddingGraphs, texts: Sequence[Sequence[int]]) -> FloatArray:
    (batch,) = graphs.run(texts, [TOKEN_VECTORS])
    means = [row[: len(ids)].mean(axis=0) for row, ids in zip(batch, texts, strict=True)]
    return np.stack(means)[:, :NUM_COMPONENTS]
