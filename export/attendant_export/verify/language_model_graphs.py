"""Runs the graphs of a language model's bundle in ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from attendant.v1.bundle_pb2 import MODEL_KIND_LANGUAGE_MODEL, Manifest, PrecisionGraphs

from attendant_export.data.batches import pad
from attendant_export.verify.graph_sessions import (
    Array,
    DecoderGraphs,
    TranslationGraphs,
    check_finite,
)
from attendant_export.verify.score_batches import score_batches


class LanguageModelGraphs(DecoderGraphs):
    """The graphs of one precision of a language model's bundle. A source is a prompt."""

    def first_token(self, source: Sequence[int]) -> int:
        """The last token of the prompt."""
        return source[-1]

    def num_past(self, num_source_tokens: int) -> int:
        """Number of the other tokens of the prompt."""
        return num_source_tokens - 1

    def uncached(
        self, source: Sequence[int], token_ids: Sequence[int]
    ) -> tuple[Sequence[int], Sequence[int]]:
        """The whole text as a prompt, and its last token."""
        text = [*source, *token_ids]
        return text, text[-1:]

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Array]:
        """Keys and values of each layer for all tokens of the prompts but the last ones."""
        return self._run_encoder(self._encoder_outputs, [source[:-1] for source in sources])

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Log-probability of each token of a continuation, in padded batches of whole texts."""
        texts = [[*source, *target] for source, target in zip(sources, targets, strict=True)]
        scored: list[list[float]] = []
        for batch in score_batches(texts, self.vocab_size):
            rows = self._score_texts([texts[i] for i in batch])
            for i, row in zip(batch, rows, strict=True):
                scored.append(row[len(row) - len(targets[i]) :].tolist())
        return scored

    def _score_texts(self, texts: Sequence[Sequence[int]]) -> list[Array]:
        """Log-probabilities of all tokens of each text but the first."""
        padded = pad(texts, self.special_tokens.pad_id).numpy()
        inputs = {"target_in": padded[:, :-1], "target_out": padded[:, 1:]}
        (log_p,) = self.use(self.scorer).run(["log_probabilities"], inputs)
        rows = [row[: len(text) - 1] for row, text in zip(log_p, texts, strict=True)]
        check_finite("scorer", np.concatenate(rows))
        return rows


def open_graphs(folder: Path, graphs: PrecisionGraphs, manifest: Manifest) -> DecoderGraphs:
    """The graphs of one precision of a bundle whose model has a decoder. Raises GraphError."""
    is_language_model = manifest.kind == MODEL_KIND_LANGUAGE_MODEL
    kind = LanguageModelGraphs if is_language_model else TranslationGraphs
    return kind(folder, graphs, manifest)
