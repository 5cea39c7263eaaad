"""Export of trained word vectors as static embeddings."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer

from attendant_export.bundle.controls import ControlOption
from attendant_export.bundle.draft import Draft
from attendant_export.bundle.embedding import EmbeddingExport
from attendant_export.data.word_tokenizer import UNKNOWN_ID
from attendant_export.models.static_embedding import static_encoder
from attendant_export.models.word_vectors import WordVectors
from attendant_export.runs.models import load_model

NUM_NEAREST = 5
"""Number of words that the model card shows for an example."""


class WordVectorExport(EmbeddingExport):
    """The export of word vectors, whose examples show the nearest words."""

    example_title = "nearest words"

    def __init__(self, model: WordVectors, tokenizer: Tokenizer, draft: Draft) -> None:
        """Complete the draft's manifest and embed the reference texts."""
        encoder = static_encoder(model.table(), UNKNOWN_ID, UNKNOWN_ID)
        super().__init__(encoder, tokenizer, draft)

    @torch.inference_mode()
    def example_outputs(self, texts: Sequence[str]) -> list[str]:
        """The words nearest to each text by cosine, without its own.

        Raises ValueError for a text without known words.
        """
        table = self._model.embedding.weight
        rows = table / table.norm(dim=1, keepdim=True).clamp(min=1e-12)
        outputs = []
        for text in texts:
            ids = self._tokenizer.encode(text).ids
            if set(ids) <= {UNKNOWN_ID}:
                raise ValueError(f"an example of the data card has no known word: {text}")
            cosines = rows @ self._model.pooled(torch.tensor([ids]))[0]
            cosines[[UNKNOWN_ID, *ids]] = -torch.inf
            best = cosines.topk(min(NUM_NEAREST, len(rows))).indices.tolist()
            outputs.append(", ".join(str(self._tokenizer.id_to_token(each)) for each in best))
        return outputs


def export_of_run(
    run_dir: Path, draft: Draft, _controls: Sequence[ControlOption], num_averaged: int | None
) -> WordVectorExport:
    """The export of a run, with the weights of `load_model`. Word vectors have no controls."""
    model, tokenizer = load_model(run_dir, num_averaged)
    assert isinstance(model, WordVectors)
    return WordVectorExport(model, tokenizer, draft)
