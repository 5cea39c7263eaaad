"""Compares a loaded model with the reference outputs that its bundle brings along.

A model with damaged weights, or with graphs that compute something else, is thus refused. Small
differences are allowed, because processors round differently.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from attendant_server.bundles import Bundle
from attendant_server.engine.encoder_calls import SPARSE_VECTORS
from attendant_server.reasons import reason_of
from attendant_server.runtime.decoder_model import OnnxDecoderModel
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel
from attendant_server.runtime.step_trials import tolerance

NUM_TEXTS = 4
"""Number of reference texts that are run, in one batch."""
VECTOR_TOLERANCE = 0.05
"""Largest difference of vectors, relative to their length."""
MAX_REFERENCE_BYTES = 64 * 1024 * 1024


def check_reference_outputs(bundle: Bundle, model: OnnxDecoderModel | OnnxEmbeddingModel) -> None:
    """Raise ValueError if the outputs of the first reference texts are others.

    Bundles without reference outputs are not compared.
    """
    name = bundle.manifest.reference_outputs
    if not name:
        return
    with _named(name):
        path = bundle.path_of(name)
        if path.stat().st_size > MAX_REFERENCE_BYTES:
            raise ValueError(f"larger than {MAX_REFERENCE_BYTES} bytes")
        reference = json.loads(path.read_bytes())
        texts = [text["token_ids"] for text in reference["texts"][:NUM_TEXTS]]
        stored = reference["outputs"][bundle.precision]
        if isinstance(model, OnnxDecoderModel):
            _check_scores(bundle, model, texts, stored)
        else:
            _check_vectors(bundle, model, texts, stored)
        model.release_memory()


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Raise ValueError that names the reference outputs for any error in the block."""
    try:
        yield
    except Exception as error:  # the file, or an error of ONNX Runtime
        raise ValueError(f"{name}: the reference texts fail: {reason_of(error)}") from error


def _check_scores(
    bundle: Bundle, model: OnnxDecoderModel, texts: list[list[int]], stored: Any
) -> None:
    """Score the results of one search. Other checks compare the steps with the scorer."""
    hypotheses = next(iter(stored.values()))[: len(texts)]
    targets = [hypothesis["token_ids"] for hypothesis in hypotheses]
    scores = model.score(list(zip(texts, targets, strict=True)))
    for score, hypothesis in zip(scores, hypotheses, strict=True):
        expected = np.array(hypothesis["log_probabilities"], np.float32)
        if score.log_probabilities.shape != expected.shape:
            raise ValueError("the scorer gives another number of log-probabilities")
        moved = float(np.max(np.abs(score.log_probabilities - expected), initial=0.0))
        if not moved <= tolerance(bundle.manifest, bundle.precision):  # NaN is not
            raise ValueError(f"log-probabilities differ by {moved:.3g}")


def _check_vectors(
    bundle: Bundle, model: OnnxEmbeddingModel, texts: list[list[int]], stored: Any
) -> None:
    """Compute all outputs, and compare the mean-pooled vectors."""
    names = [*bundle.graphs.embedder.outputs]
    if bundle.has_graph("sparse_head"):
        names.append(SPARSE_VECTORS)
    found = model.embed(texts, names)
    for name, values in found.items():
        if len(values) != len(texts) or values.dtype != np.float32:
            raise ValueError(f"{name} has {len(values)} rows of {values.dtype} for {len(texts)}")
        if not np.isfinite(values).all():
            raise ValueError(f"{name} has values that are no finite numbers")
    vectors = found["mean_pooled"]
    expected = np.array(stored["mean_pooled"][: len(texts)])
    norms = np.array(stored["norms"][: len(texts)])
    moved = np.linalg.norm(vectors[:, : expected.shape[1]] - expected, axis=1)
    moved = np.maximum(moved, np.abs(np.linalg.norm(vectors, axis=1) - norms))
    if not (moved <= VECTOR_TOLERANCE * np.maximum(norms, 1e-6)).all():
        raise ValueError(f"vectors differ by {float(np.max(moved)):.3g}")
