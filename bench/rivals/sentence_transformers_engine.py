"""sentence-transformers in process, as a worker of the bench: torch, its own sorting by length.

python -m bench.rivals.sentence_transformers_engine --model FOLDER
"""

import argparse
import os
from collections.abc import Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from bench.embedding_worker import FloatArray, serve

BATCH_SIZE = 32


class SentenceTransformersEngine:
    """One model on the CPU."""

    def __init__(self, model: str, num_threads: int, batch_size: int) -> None:
        torch.set_num_threads(num_threads)
        self._model = SentenceTransformer(model, device="cpu")
        self._batch_size = batch_size

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors (texts, d); the model ends with its own normalization."""
        vectors = self._model.encode(
            list(texts), batch_size=self._batch_size, show_progress_bar=False
        )
        return np.asarray(vectors)


def main() -> None:
    """Load the model and serve as a worker."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--num-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    serve(SentenceTransformersEngine(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
