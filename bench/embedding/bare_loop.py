"""The upper bound for embeddings: a loop over a bundle's graph, with batches sorted by length.

It has no requests, queue or server. It tokenizes, sorts, and splits texts into batches of a limited
number of padded tokens. One batch runs on each thread, which is faster than one batch on all
threads; a single batch uses all threads.

    python -m bench.embedding.bare_loop --bundle BUNDLE --precision fp32   # as a worker
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from bench.embedding.worker import FloatArray, engine_arguments, serve
from bench.graphs import graphs_of, open_graph, padded, read_manifest, run_for

MAX_BATCH_TOKENS = 512
"""The fastest value from 128 to 4,096 on two cores with 1 MiB of level-2 cache."""


class BareLoop:
    """Mean-pooled, normalized vectors from one precision of an embedding bundle."""

    def __init__(self, bundle: Path, precision: str, num_threads: int) -> None:
        manifest = read_manifest(bundle)
        graphs = graphs_of(manifest, precision)
        path = bundle / graphs.embedder.path
        self._on_all_threads, self._on_one = open_graph(path, num_threads), open_graph(path, 1)
        self._threads = ThreadPoolExecutor(num_threads)
        self._tokenizer = Tokenizer.from_file(str(bundle / manifest.source_tokenizer))
        self._pad_id = manifest.special_tokens.pad_id
        self._width = manifest.architecture.d_model

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """Normalized vectors (texts, d) in the order of the texts."""
        token_ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        batches = list(sorted_batches([len(ids) for ids in token_ids], MAX_BATCH_TOKENS))
        texts_of_batches = [[token_ids[i] for i in batch] for batch in batches]
        vectors = np.empty((len(texts), self._width), np.float32)
        for batch, pooled in zip(batches, self._run_all(texts_of_batches), strict=True):
            vectors[batch] = pooled
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def _run_all(self, batches: Sequence[list[list[int]]]) -> Iterator[FloatArray]:
        if len(batches) == 1:
            yield self._run(self._on_all_threads, batches[0])
        else:
            yield from self._threads.map(partial(self._run, self._on_one), batches)

    def _run(self, session: Any, token_ids: list[list[int]]) -> FloatArray:
        lengths = np.array([len(ids) for ids in token_ids], np.int64)
        feeds = {"token_ids": padded(token_ids, self._pad_id), "lengths": lengths}
        return run_for("mean_pooled", session, feeds)


def sorted_batches(lengths: Sequence[int], max_batch_tokens: int) -> Iterator[list[int]]:
    """Indices of texts, shortest first, in batches of at most ``max_batch_tokens`` padded tokens.

    A text longer than the limit is a batch of its own.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[i] * (len(batch) + 1) > max_batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


if __name__ == "__main__":
    arguments = engine_arguments(__doc__, "--bundle", "--precision")
    loop = BareLoop(Path(arguments.bundle), arguments.precision, arguments.num_threads)
    serve(loop.embed)
