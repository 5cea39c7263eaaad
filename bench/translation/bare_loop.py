"""The upper bound for static batches: a greedy loop over a bundle's graphs.

It has no requests, queue or server. Sentences are sorted by the length of their output, and a batch
runs until its longest sentence ends. All memory of a batch is bound once; a step writes small
arrays and runs the graph. Greedy search only.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from attendant.v1.bundle_pb2 import STATE_OWNER_ROW, STATE_OWNER_SOURCE, STATE_UPDATE_REPLACED

from bench.graphs import Array, graphs_of, open_graph, padded, read_manifest


class BareLoop:
    """Greedy search over the graphs of one translation bundle."""

    def __init__(self, bundle: Path, precision: str) -> None:
        manifest = read_manifest(bundle)
        graphs = graphs_of(manifest, precision)
        num_threads = len(os.sched_getaffinity(0))
        self._encoder = open_graph(bundle / graphs.encoder.path, num_threads)
        greedy = [s for s in graphs.steps if s.rows_per_sentence == 1 and not s.inputs.shortlist]
        self._signature = max(greedy, key=lambda step: step.num_tokens)
        self._step = open_graph(bundle / self._signature.graph.path, num_threads)
        self._manifest = manifest
        self._max_length = manifest.limits.max_target_tokens
        self._past: dict[str, Array] = {}

    def translate(self, sources: list[list[int]]) -> list[list[int]]:
        """Decode one static batch until every sentence has ended or reached the model's limit."""
        source = padded(sources, self._manifest.special_tokens.pad_id)
        source_lengths = np.array([len(s) for s in sources], dtype=np.int64)
        feeds = {"source": source, "source_lengths": source_lengths}
        states = [s for s in self._signature.states if s.owner == STATE_OWNER_SOURCE]
        encoded = self._encoder.run([state.encoder_output for state in states], feeds)
        named = {state.input: array for state, array in zip(states, encoded, strict=True)}
        return self._decode(named, source_lengths)

    def _decode(self, encoded: dict[str, Array], source_lengths: Array) -> list[list[int]]:
        num_rows, num_tokens = len(source_lengths), self._signature.num_tokens
        tokens = np.full(num_rows, self._manifest.decoding.start_token_id, dtype=np.int64)
        lengths = np.zeros(num_rows, dtype=np.int32)
        total_length = np.ones(1, dtype=np.int32)
        best = np.empty((num_rows, num_tokens), dtype=np.int64)
        names = self._signature.inputs
        bound: dict[str, Array] = {
            **encoded,
            names.tokens: tokens,
            names.past_lengths: lengths,
            names.total_length: total_length,
            names.source_lengths: source_lengths,
            names.total_source_length: source_lengths.max(keepdims=True).astype(np.int32),
            **self._caches(num_rows),
        }
        replaced = [s.input for s in self._signature.states if s.update == STATE_UPDATE_REPLACED]
        next_states = {}
        for name in replaced:
            bound[name][:] = 0
            next_states[name] = np.empty_like(bound[name])
        bindings = [self._bind(bound, best, next_states)]
        if replaced:  # two steps in turn read what the other one has written
            bindings.append(self._bind(bound | next_states, best, bound))
        outputs: list[list[int]] = [[] for _ in range(num_rows)]
        running = set(range(num_rows))
        eos_id = self._manifest.special_tokens.eos_id
        while running and lengths[0] < self._max_length:
            self._step.run_with_iobinding(bindings[0])
            bindings.reverse()
            tokens[:] = best[:, -1]
            lengths += num_tokens
            total_length += num_tokens
            for row in list(running):
                outputs[row] += best[row].tolist()[: self._max_length - len(outputs[row])]
                if eos_id in best[row]:
                    del outputs[row][outputs[row].index(eos_id) + 1 :]
                    running.remove(row)
        return outputs

    def _bind(self, arrays: dict[str, Array], best: Array, next_states: dict[str, Array]) -> Any:
        """Bind a step to fixed memory. States that are not in ``next_states`` change in place."""
        for bias in self._signature.inputs.token_biases:
            arrays.setdefault(bias.indices, np.zeros((0, 2), np.int64))
            arrays.setdefault(bias.values, np.zeros(0, np.float32))
        binding = self._step.io_binding()
        for name in self._signature.graph.inputs:
            binding.bind_input(name, *_memory_of(arrays[name]))
        for state in self._signature.states:
            for output in state.outputs:
                after = next_states.get(state.input, arrays[state.input])
                binding.bind_output(output, *_memory_of(after))
        binding.bind_output(self._signature.outputs.candidate_ids, *_memory_of(best))
        return binding

    def _caches(self, num_rows: int) -> dict[str, Array]:
        """The first rows of caches that persist between batches and grow on demand."""
        if not self._past or len(next(iter(self._past.values()))) < num_rows:
            max_positions = self._max_length + self._signature.num_tokens - 1
            self._past = {
                state.input: np.zeros(
                    (num_rows, *(size or max_positions for size in state.shape)), np.float32
                )
                for state in self._signature.states
                if state.owner == STATE_OWNER_ROW
            }
        return {name: array[:num_rows] for name, array in self._past.items()}


def _memory_of(array: Array) -> tuple[Any, ...]:
    """The arguments that bind an array in place."""
    return ("cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
