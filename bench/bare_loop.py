"""The ceiling for static batches: a bare greedy loop over a bundle's graphs.

No requests, no queue, no server: sentences sorted perfectly by the length of their output, in
batches that end with their longest sentence. All memory of a batch is bound once; a step writes two
small arrays and runs the graph. Greedy search only.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the next line loads it
import onnxruntime
from numpy.typing import NDArray

from bench.graphs import memory_of, no_adjustments, num_step_tokens, open_graph, presents

Array = NDArray[Any]


class BareLoop:
    """Greedy search over the int8 or fp32 graphs of one translation bundle."""

    def __init__(self, bundle: Path, precision: str) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        graphs = next(p for p in manifest["precisions"] if p["name"] == precision)
        num_threads = len(os.sched_getaffinity(0))
        self._encoder = open_graph(bundle / graphs["encoder"]["path"], num_threads)
        # Bundles of older versions have no graph for greedy search alone.
        step = graphs.get("greedy_steps", graphs.get("greedy_step", graphs["decoder_step"]))
        self._step = open_graph(bundle / step["path"], num_threads)
        self._step_outputs = {node.name for node in self._step.get_outputs()}
        self._num_step_tokens = num_step_tokens(self._step)
        self._step_inputs = {node.name for node in self._step.get_inputs()}
        self._cross_names = [output.name for output in self._encoder.get_outputs()]
        self._sizes, self._tokens = manifest["translation_sizes"], manifest["special_tokens"]
        self._max_length = manifest["limits"]["max_target_tokens"]
        self._past: list[Array] = []

    def translate(self, sources: Sequence[Sequence[int]]) -> list[list[int]]:
        """Decode one static batch until every sentence has ended, or at the model's limit."""
        lengths = np.array([len(s) for s in sources], dtype=np.int64)
        padded = np.full((len(sources), lengths.max()), self._tokens.get("pad_id", 0), np.int64)
        for row, source in zip(padded, sources, strict=True):
            row[: len(source)] = source
        feeds: dict[str, Array] = {"source": padded, "source_lengths": lengths}
        cross = self._encoder.run(self._cross_names, feeds)
        feeds |= dict(zip(self._cross_names, cross, strict=True))
        return self._decode(feeds, len(sources))

    def _decode(self, feeds: dict[str, Array], num_rows: int) -> list[list[int]]:
        tokens = np.full(num_rows, self._tokens["bos_id"], dtype=np.int64)
        lengths = np.zeros(num_rows, dtype=np.int32)
        total_length = np.ones(1, dtype=np.int32)
        best = np.empty((num_rows, self._num_step_tokens), dtype=np.int64)
        steps: dict[str, Array] = {
            "tokens": tokens,
            "lengths": lengths,
            "total_length": total_length,
        }
        binding = self._bind({**feeds, **steps}, best)
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

    def _bind(self, feeds: dict[str, Array], best: Array) -> onnxruntime.IOBinding:
        binding = self._step.io_binding()
        feeds = {
            **feeds,
            "total_source_length": feeds["source_lengths"].max(keepdims=True).astype(np.int32),
            "num_candidates": np.ones(1, dtype=np.int64),
            **no_adjustments(self._num_step_tokens),
        }
        for name in self._step_inputs & feeds.keys():
            # Held by the binding, and read anew at every run.
            value = onnxruntime.OrtValue.ortvalue_from_numpy(feeds[name])
            binding.bind_ortvalue_input(name, value)
        for name in self._cross_names:
            for present in presents(f"present_{name}", self._num_step_tokens):
                if present in self._step_outputs:  # and writes what is there already
                    binding.bind_output(present, *memory_of(feeds[name]))
        for name, memory in self._caches(len(best)).items():
            binding.bind_input(f"past_{name}", *memory)
            for present in presents(f"present_{name}", self._num_step_tokens):
                binding.bind_output(present, *memory)
        binding.bind_output("candidate_ids", *memory_of(best))
        return binding

    def _caches(self, num_rows: int) -> dict[str, tuple[Any, ...]]:
        """The first rows of caches that are kept from batch to batch and grow when they must."""
        layers = range(self._sizes["num_decoder_layers"])
        names = [f"{kind}_{i}" for i in layers for kind in ("key", "value")]
        if not self._past or len(self._past[0]) < num_rows:
            max_positions = self._max_length + self._num_step_tokens - 1
            sizes = self._sizes["num_heads"], max_positions, self._sizes["head_dim"]
            self._past = [np.zeros((num_rows, *sizes), np.float32) for _ in names]
        return {name: memory_of(a[:num_rows]) for name, a in zip(names, self._past, strict=True)}
