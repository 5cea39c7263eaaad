"""Scores of labels in exports and in verifications of bundles."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from attendant.v1.bundle_pb2 import Manifest, PrecisionParity
from tokenizers import Tokenizer

from attendant_export.bundle.draft import ROUNDING, rounded
from attendant_export.bundle.json_form import Form, ListOf, check_form
from attendant_export.bundle.reference_outputs import source_token_ids
from attendant_export.models.encoder import Encoder
from attendant_export.verify.classification import (
    BATCHED_BOUNDS,
    ClassifiedText,
    graph_scores,
    label_score_difference,
    model_scores,
    scores_alone,
)
from attendant_export.verify.embedding import EmbeddingGraphs, FloatArray
from attendant_export.verify.graph_sessions import ParityError

TEXTS, SCORES = "classified", "label_scores"
"""Fields of reference outputs: texts and pairs of texts, and the scores of each precision."""


class LabelExport:
    """The part of an export that is for a classification head."""

    def __init__(self, model: Encoder, texts: Sequence[ClassifiedText]) -> None:
        """Score the texts with the PyTorch model."""
        self._texts, self._expected = texts, model_scores(model, texts)
        self._found: dict[str, FloatArray] = {}

    def verify(self, graphs: EmbeddingGraphs, parity: PrecisionParity) -> None:
        """Compare graphs with the model and write the difference into ``parity``.

        Raises ParityError if fp32 differs, or if a result depends on other texts.
        """
        found = self._found[graphs.precision] = scores_alone(graphs, self._texts)
        difference = label_score_difference(graphs.precision, found, self._expected)
        parity.max_label_score_difference = difference

    def add_reference_outputs(self, outputs: dict[str, Any]) -> None:
        """Add the texts and the scores of each precision of the bundle to reference outputs."""
        outputs[TEXTS] = [asdict(text) for text in self._texts]
        for precision, content in outputs["outputs"].items():
            content[SCORES] = [rounded(row) for row in self._found[precision]]


def classified_texts(
    texts: Mapping[str, list[int]], tokenizer: Tokenizer, manifest: Manifest
) -> list[ClassifiedText]:
    """The reference texts, given with their token ids, each alone and then in pairs."""
    alone = [ClassifiedText([text], ids, len(ids)) for text, ids in texts.items()]
    pairs = [classified_text(tokenizer, manifest, *pair) for pair in pairwise(texts)]
    longest = manifest.limits.max_tokens
    return alone + [pair for pair in pairs if len(pair.token_ids) <= longest]


def classified_text(tokenizer: Tokenizer, manifest: Manifest, *texts: str) -> ClassifiedText:
    """One text, or a pair of texts, with its tokens.

    Raises ValueError for more texts, and if the tokenizer cannot read them.
    """
    if len(texts) > 2:
        raise ValueError(f"{len(texts)} texts, separated by tabs: want one or two")
    text, pair = texts if len(texts) == 2 else (texts[0], None)
    types = tokenizer.encode(text, pair).type_ids
    if types != sorted(types):
        raise ValueError("tokenizer.json: the tokens of type 1 of a pair are not its last ones")
    token_ids = source_token_ids(manifest, tokenizer, text, pair)
    return ClassifiedText(list(texts), token_ids, types.count(0))


def read_classified(
    path: Path, content: dict[str, Any], manifest: Manifest
) -> list[ClassifiedText]:
    """The texts of reference outputs. Raises BundleError that names the fault."""
    token_ids = ListOf(range(manifest.architecture.source_embeddings.vocab_size))
    first_length = range(manifest.limits.max_tokens + 1)
    text: Form = {"texts": ListOf(str), "token_ids": token_ids, "first_length": first_length}
    check_form(path, content, {TEXTS: ListOf(text)})
    num_labels = manifest.architecture.classification_head.num_labels
    labels: list[Form] = [float] * num_labels
    scores: Form = {SCORES: [labels] * len(content[TEXTS])}
    check_form(path, content, {"outputs": {p.name: scores for p in manifest.precisions}})
    return [ClassifiedText(**each) for each in content[TEXTS]]


def check_label_scores(
    graphs: EmbeddingGraphs, texts: Sequence[ClassifiedText], stored: Sequence[Sequence[float]]
) -> str:
    """Score the reference texts again, in one batch; returns a description of the comparison.

    Raises ParityError for other scores.
    """
    expected = np.array(stored, np.float32)
    moved = float(np.abs(graph_scores(graphs, texts) - expected).max())
    bound = BATCHED_BOUNDS[graphs.precision] * float(np.abs(expected).max(initial=1.0))
    if not (moved <= bound + ROUNDING):
        raise ParityError(
            f"{graphs.precision}: scores of labels differ by {moved:.2g}; the bound is {bound:.2g}"
        )
    return f"scores of labels of {len(texts)} texts and pairs within {bound:.2g}"
