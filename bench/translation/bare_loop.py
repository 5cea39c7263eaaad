"""The ceiling for static batches: a bare greedy loop over a bundle's graphs.

No requests, no queue, no server: sentences sorted perfectly by the length of their output, in
batches that end with their longest sentence. All memory of a batch is bound once; a step writes
small arrays and runs the graph. Greedy search only.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from bench.graphs import Array, open_graph, padded, read_manifest


class BareLoop:
    """Greedy search over the graphs of one translation bundle."""

    def __init__(self, bundle: Path, precision: str) -> None:
        manifest, graphs = read_manifest(bundle, precision)
        num_threads = len(os.sched_getaffinity(0))
        self._encoder = open_graph(graphs["encoder"], num_threads)
        self._step = open_graph(graphs["greedy_steps"], num_threads)
        outputs = {node.name: node.shape for node in self._step.get_outputs()}
        self._num_step_tokens: int = outputs["candidate_ids"][1]
        self._outputs = set(outputs)
        self._cross_names = [output.name for output in self._encoder.get_outputs()]
        self._sizes, self._tokens = manifest["translation_sizes"], manifest["special_tokens"]
        self._max_length = manifest["limits"]["max_target_tokens"]
        self._past: list[Array] = []

    def translate(self, sources: list[list[int]]) -> list[list[int]]:
        """Decode one static batch until every sentence has ended, or at the model's limit."""
        source = padded(sources, self._tokens.get("pad_id", 0))
        source_lengths = np.array([len(s) for s in sources], dtype=np.int64)
        feeds = {"source": source, "source_lengths": source_lengths}
        cross = self._encoder.run(self._cross_names, feeds)
        feeds |= dict(zip(self._cross_names, cross, strict=True))
        return self._decode(feeds, len(sources))

    def _decode(self, feeds: dict[str, Array], num_rows: int) -> list[list[int]]:
        tokens = np.full(num_rows, self._tokens["bos_id"], dtype=np.int64)
        lengths = np.zeros(num_rows, dtype=np.int32)
        total_length = np.ones(1, dtype=np.int32)
        best = np.empty((num_rows, self._num_step_tokens), dtype=np.int64)
        total_source_length = feeds["source_lengths"].max(keepdims=True).astype(np.int32)
        bound: dict[str, Array] = {
            **feeds,
            "tokens": tokens,
            "lengths": lengths,
            "total_length": total_length,
            "total_source_length": total_source_length,
            **self._caches(num_rows),
        }
        binding = self._bind(bound, best)
        outputs: list[list[int]] = [[] for _ in range(num_rows)]
        running = set(range(num_rows))
        eos_id = self._tokens["eos_id"]
        while running and lengths[0] < self._max_length:
            self._step.run_with_iobinding(binding)
            tokens[:] = best[:, -1]
            lengths += self._num_step_tokens
            total_length += self._num_step_tokens
            for row in list(running):
                outputs[row] += best[row].tolist()[: self._max_length - len(outputs[row])]
                if eos_id in best[row]:
                    del outputs[row][outputs[row].index(eos_id) + 1 :]
                    running.remove(row)
        return outputs

    def _bind(self, arrays: dict[str, Array], best: Array) -> Any:
        """A step on memory that the caller keeps; a present is written where its past is."""
        suffixes = ["", *(f"_{i}" for i in range(1, self._num_step_tokens))]
        for suffix in suffixes:
            arrays[f"adjusted_positions{suffix}"] = np.zeros((0, 2), np.int64)
            arrays[f"adjustments{suffix}"] = np.zeros(0, np.float32)
        binding = self._step.io_binding()
        for name in (node.name for node in self._step.get_inputs()):
            memory = _memory_of(arrays[name])
            binding.bind_input(name, *memory)
            present = name.replace("past_", "present_").replace("cross_", "present_cross_")
            for output in self._outputs.intersection(present + suffix for suffix in suffixes):
                binding.bind_output(output, *memory)
        binding.bind_output("candidate_ids", *_memory_of(best))
        return binding

    def _caches(self, num_rows: int) -> dict[str, Array]:
        """The first rows of caches that are kept from batch to batch and grow when they must."""
        layers = range(self._sizes["num_decoder_layers"])
        names = [f"past_{kind}_{i}" for i in layers for kind in ("key", "value")]
        if not self._past or len(self._past[0]) < num_rows:
            max_positions = self._max_length + self._num_step_tokens - 1
            sizes = self._sizes["num_heads"], max_positions, self._sizes["head_dim"]
            self._past = [np.zeros((num_rows, *sizes), np.float32) for _ in names]
        return {name: a[:num_rows] for name, a in zip(names, self._past, strict=True)}


def _memory_of(array: Array) -> tuple[Any, ...]:
    """How a binding describes an array that it uses in place."""
    return ("cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
