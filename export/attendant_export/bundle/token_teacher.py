"""The vectors that an embedding bundle gives to single tokens.

Tokens are given to the graphs by their ids: no text has only a token that continues a word.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from attendant.v1.bundle_pb2 import MODEL_KIND_EMBEDDING, Manifest
from attendant_manifest.sizes import text_dimension

from attendant_export.bundle.manifest import check_files, read_manifest
from attendant_export.bundle.parameters import REFERENCES
from attendant_export.models.text_vectors import POOLINGS
from attendant_export.progress import progress
from attendant_export.verify.embedding import EmbeddingGraphs, FloatArray

BATCH_SIZE = 256
"""Tokens that are embedded together."""
NO_DERIVATIVES = re.compile(r"\bND\b|\bNo ?Deriv", re.IGNORECASE)
"""A part of names of licences that forbid derived works, such as CC-BY-NC-ND-4.0.

Model cards on hubs have such names in small letters.
"""


class TokenTeacher:
    """An embedding bundle whose vectors of single tokens are taught to another model."""

    def __init__(self, folder: Path) -> None:
        """Raises BundleError for a damaged bundle and ValueError for one that cannot teach.

        A bundle cannot teach if its model is no embedding model, if the model was trained for
        another output than vectors of texts, or if its licence is missing or forbids derived works.
        """
        self.manifest = read_manifest(folder)
        title, license_ = f"--teacher {folder}", self.manifest.license
        if self.manifest.kind != MODEL_KIND_EMBEDDING:
            raise ValueError(f"{title}: is no embedding model")
        if purpose := _other_purpose(self.manifest):
            raise ValueError(f"{title}: its vectors of texts were never trained, only {purpose}")
        if not license_:
            raise ValueError(f"{title}: states no licence, so nothing may be derived from it")
        if NO_DERIVATIVES.search(license_):
            raise ValueError(f"{title}: its licence, {license_}, allows no derived works")
        check_files(folder, self.manifest)
        self.name = f"{self.manifest.name}/{self.manifest.version}"
        """Name and version of the model."""
        self.dimension = text_dimension(self.manifest.architecture)
        """Dimension of its vectors of texts."""
        by_name = {graphs.name: graphs for graphs in self.manifest.precisions}
        self.precision = next(name for name in REFERENCES if name in by_name)
        """The precision that computes the vectors."""
        self.pooling = POOLINGS[self.manifest.embedding.pooling]
        """The pooling of its vectors, its default."""
        without_prompt = Manifest()
        without_prompt.CopyFrom(self.manifest)
        without_prompt.embedding.num_prompt_tokens = 0
        self._graphs = EmbeddingGraphs(folder, by_name[self.precision], without_prompt)

    def embed(self, token_ids: Sequence[int]) -> FloatArray:
        """Vectors (tokens, dimension) of tokens alone, between the special tokens of a text.

        They are not normalized. A default prompt is left out. Raises GraphError, and ParityError
        for NaN or infinity.
        """
        special = self.manifest.special_tokens
        before = [special.cls_id] if special.HasField("cls_id") else []
        after = [special.sep_id] if special.HasField("sep_id") else []
        found = np.empty((len(token_ids), self.dimension), np.float32)
        for start in progress(range(0, len(token_ids), BATCH_SIZE), "embedding tokens"):
            texts = [[*before, each, *after] for each in token_ids[start : start + BATCH_SIZE]]
            (found[start : start + len(texts)],) = self._graphs.run(
                texts, [f"{self.pooling}_pooled"]
            )
        return found


def _other_purpose(manifest: Manifest) -> str:
    """What the model was trained for instead of vectors of texts, or ""."""
    if manifest.HasField("classification"):
        return "its scores of labels"
    if manifest.HasField("late_interaction"):
        return "its vectors of tokens"
    return "its sparse vectors" if manifest.architecture.HasField("sparse_vectors") else ""
