"""The ceiling for embeddings: a bare loop over a bundle's graph, batches sorted by length.

No requests, no queue, no server. Tokenizes, sorts, cuts into batches within a budget of padded
tokens, and runs as many batches side by side as there are threads, one on each: that is faster
than one batch on all of them, which is how a single batch is run.

    python -m bench.embedding_bare_loop --bundle BUNDLE --precision fp32   # as a worker
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the next line loads it
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bench.embedding_worker import FloatArray, serve
from bench.graphs import open_graph

MAX_BATCH_TOKENS = 512
"""Fastest on two cores with 1 MiB of second-level cache, among 128 to 4,096."""


class BareLoop:
    """Mean-pooled, normalized vectors from one precision of an embedding bundle."""

    def __init__(self, bundle: Path, precision: str, num_threads: int, max_batch_tokens: int):
        manifest = json.loads((bundle / "manifest.json").read_text())
        graphs = next(p for p in manifest["precisions"] if p["name"] == precision)
        path = bundle / graphs["embedder"]["path"]
        self._on_all_threads, self._on_one = open_graph(path, num_threads), open_graph(path, 1)
        self._threads = ThreadPoolExecutor(num_threads)
        self._options = onnxruntime.RunOptions()
        self._options.only_execute_path_to_fetches = True
        self._tokenizer = Tokenizer.from_file(str(bundle / manifest["source_tokenizer"]))
        self._pad_id = manifest["special_tokens"].get("pad_id", 0)
        self._width = manifest["embedding_sizes"]["d_model"]
        self._max_batch_tokens = max_batch_tokens

    async def embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of length 1 (texts, d), in the order of the texts."""
        token_ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        lengths = [len(ids) for ids in token_ids]
        batches = list(sorted_batches(lengths, self._max_batch_tokens))
        texts_of_batches = [[token_ids[i] for i in batch] for batch in batches]
        vectors = np.empty((len(texts), self._width), np.float32)
        for batch, pooled in zip(batches, self._run_all(texts_of_batches), strict=True):
            vectors[batch] = pooled
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def _run_all(self, batches: Sequence[Sequence[Sequence[int]]]) -> Iterator[FloatArray]:
        if len(batches) == 1:
            yield self._run(self._on_all_threads, batches[0])
        else:
            yield from self._threads.map(partial(self._run, self._on_one), batches)

    def _run(
        self, session: onnxruntime.InferenceSession, token_ids: Sequence[Sequence[int]]
    ) -> FloatArray:
        lengths = np.array([len(ids) for ids in token_ids], np.int64)
        padded: NDArray[np.int64] = np.full((len(lengths), lengths.max()), self._pad_id, np.int64)
        for row, ids in zip(padded, token_ids, strict=True):
            row[: len(ids)] = ids
        feeds = {"token_ids": padded, "lengths": lengths}
        (pooled,) = session.run(["mean_pooled"], feeds, self._options)
        return np.asarray(pooled)


def sorted_batches(lengths: Sequence[int], max_batch_tokens: int) -> Iterator[list[int]]:
    """Indices of texts, shortest first, in batches of at most so many padded tokens.

    A text that is longer than that is a batch of its own.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[i] * (len(batch) + 1) > max_batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def main() -> None:
    """Load the graph and serve as a worker."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--num-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--max-batch-tokens", type=int, default=MAX_BATCH_TOKENS)
    arguments = parser.parse_args()
    serve(BareLoop(**vars(arguments)))


if __name__ == "__main__":
    main()
