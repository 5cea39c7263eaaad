"""A bench worker with the engine of infinity-emb: PyTorch with dynamic batching.

    python -m bench.rivals.infinity_engine --model FOLDER

Runs in its own environment, because it needs older versions of shared libraries.
"""

import asyncio
import os
from collections.abc import Sequence

os.environ.setdefault("DO_NOT_TRACK", "1")  # must be set before the imports below
import numpy as np
import torch
from infinity_emb import AsyncEmbeddingEngine, EngineArgs
from infinity_emb.primitives import Device, Dtype, InferenceEngine

from bench.embedding.worker import FloatArray, engine_arguments, serve

BATCH_SIZE = 32


class InfinityEngine:
    """One model on the CPU. The first texts start the engine."""

    def __init__(self, model: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self._engine = AsyncEmbeddingEngine.from_args(
            EngineArgs(
                model_name_or_path=model,
                engine=InferenceEngine.torch,
                device=Device.cpu,
                dtype=Dtype.float32,
                batch_size=BATCH_SIZE,
                lengths_via_tokenize=False,
                model_warmup=False,
            )
        )
        self._starting = asyncio.Lock()

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """Normalized vectors (texts, d)."""
        async with self._starting:
            if not self._engine.running:
                await self._engine.astart()
        vectors, _ = await self._engine.embed(sentences=list(texts))
        return np.stack(vectors)


if __name__ == "__main__":
    serve(InfinityEngine(**vars(engine_arguments(__doc__, "--model"))).embed)
    os._exit(0)  # The engine's threads do not end by themselves.
