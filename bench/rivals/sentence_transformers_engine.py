"""A bench worker with sentence-transformers: PyTorch, with batches sorted by length.

python -m bench.rivals.sentence_transformers_engine --model FOLDER
"""

from collections.abc import Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from bench.embedding.worker import FloatArray, engine_arguments, serve

BATCH_SIZE = 32


class SentenceTransformersEngine:
    """One model on the CPU."""

    def __init__(self, model: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._model = SentenceTransformer(model, device="cpu")

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors (texts, d), normalized by the model itself."""
        found = self._model.encode(list(texts), batch_size=BATCH_SIZE, show_progress_bar=False)
        return np.asarray(found)


if __name__ == "__main__":
    serve(SentenceTransformersEngine(**vars(engine_arguments(__doc__, "--model"))).embed)
