"""Compares the scores of labels of graphs with those of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from attendant.v1.bundle_pb2 import OriginalLabelScores

from attendant_export.models.encoder import Encoder
from attendant_export.verify.bounds import FP32_BOUND, MIN_BOUNDS
from attendant_export.verify.embedding import EmbeddingGraphs, FloatArray
from attendant_export.verify.graph_sessions import ParityError
from attendant_export.verify.original import IMPLEMENTATION, Original

BATCHED_BOUNDS = {"fp32": FP32_BOUND, **MIN_BOUNDS}
"""Largest change of a score when texts share a batch, as a part of the largest score or of 1."""


@dataclass(frozen=True, slots=True)
class ClassifiedText:
    """A text, or a pair of texts, with its tokens."""

    texts: list[str]
    """One or two texts."""
    token_ids: list[int]
    first_length: int
    """Number of tokens of type 0, which come first."""

    @property
    def token_types(self) -> list[int]:
        """The type of each token."""
        return [int(i >= self.first_length) for i in range(len(self.token_ids))]


def graph_scores(graphs: EmbeddingGraphs, texts: Sequence[ClassifiedText]) -> FloatArray:
    """Scores of labels (texts, labels), computed in one padded batch."""
    return graphs.label_scores(
        [text.token_ids for text in texts], [text.first_length for text in texts]
    )


def scores_alone(graphs: EmbeddingGraphs, texts: Sequence[ClassifiedText]) -> FloatArray:
    """Scores of labels (texts, labels), computed for each text alone.

    Raises ParityError if they change when all texts share a batch.
    """
    alone = np.concatenate([graph_scores(graphs, [text]) for text in texts])
    moved = _relative(alone, graph_scores(graphs, texts))
    if not (moved <= BATCHED_BOUNDS[graphs.precision]):
        raise ParityError(
            f"{graphs.precision}: scores of labels differ by {moved:.2g} when batched"
        )
    return alone


@torch.inference_mode()
def model_scores(model: Encoder, texts: Sequence[ClassifiedText]) -> FloatArray:
    """Scores of labels (texts, labels) of the PyTorch model."""
    has_types = model.architecture.source_embeddings.num_token_types > 1
    rows = [
        model.label_scores(
            torch.tensor([text.token_ids]),
            torch.tensor([text.token_types]) if has_types else None,
        )
        for text in texts
    ]
    return torch.cat(rows).float().numpy()


def label_score_difference(precision: str, found: FloatArray, expected: FloatArray) -> float:
    """Largest difference between scores. Raises ParityError if those of fp32 differ."""
    if precision == "fp32" and not (_relative(expected, found) <= FP32_BOUND):
        raise ParityError("fp32 graphs do not follow the model: scores of labels differ")
    return float(np.abs(found - expected).max())


class OriginalClassifier(Original):
    """A model for classification in the original implementation."""

    def __init__(self, folder: Any) -> None:
        """Raises OriginalError."""
        super().__init__(folder, "AutoModelForSequenceClassification")

    def encode(self, texts: Sequence[str]) -> tuple[list[int], list[int] | None]:
        """Ids and types of the tokens of a text or a pair; None if the tokenizer gives no types."""
        encoded = self._tokenizer(*texts)
        return list(encoded["input_ids"]), encoded.get("token_type_ids")

    def scores(self, text: ClassifiedText, has_types: bool) -> FloatArray:
        """Scores of the labels (1, labels). Raises OriginalError."""
        inputs = {"input_ids": torch.tensor([text.token_ids])}
        if has_types:
            inputs["token_type_ids"] = torch.tensor([text.token_types])
        with self.running(len(text.token_ids)):
            found: FloatArray = self._model(**inputs).logits.numpy()
        return found


def compare_labels(
    original: OriginalClassifier,
    texts: Sequence[ClassifiedText],
    graphs: dict[str, EmbeddingGraphs],
    has_types: bool,
) -> list[OriginalLabelScores]:
    """Compare the scores of graphs by precision with those of the original implementation.

    Raises ParityError if tokens or scores of fp32 differ.
    """
    _compare_pairs(original, [text for text in texts if len(text.texts) > 1], has_types)
    expected = np.concatenate([original.scores(text, has_types) for text in texts])
    compared = []
    for precision, opened in graphs.items():
        found = np.concatenate([graph_scores(opened, [text]) for text in texts])
        if found.shape != expected.shape:
            raise ParityError(f"{IMPLEMENTATION} has scores of {expected.shape}, not {found.shape}")
        if precision == "fp32" and not (_relative(expected, found) <= FP32_BOUND):
            raise ParityError(f"scores of labels differ from {IMPLEMENTATION} {original.version}")
        compared.append(
            OriginalLabelScores(
                precision=precision,
                num_texts=len(texts),
                max_difference=float(np.abs(found - expected).max()),
                num_same_best=int((found.argmax(1) == expected.argmax(1)).sum()),
            )
        )
    return compared


def _compare_pairs(
    original: OriginalClassifier, pairs: Sequence[ClassifiedText], has_types: bool
) -> None:
    """Raise ParityError for pairs with other tokens, or with other types if the model reads them.

    The tokenizer of ALBERT in ``transformers`` 5 gives no types, unlike that of version 4.
    """
    for pair in pairs:
        ids, types = original.encode(pair.texts)
        if ids != pair.token_ids or (has_types and types not in (None, pair.token_types)):
            raise ParityError(f"{IMPLEMENTATION} has other tokens for the pair {pair.texts}")


def _relative(expected: FloatArray, found: FloatArray) -> float:
    """Largest difference, as a part of the largest expected score, or of 1."""
    return float(np.abs(found - expected).max() / np.abs(expected).max(initial=1.0))
