"""The caches of sentences that are searched with the graphs of a translation bundle."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from attendant_export.graphs.translation import step_suffix
from attendant_export.verify.graph_sessions import (
    DECODER_STEP,
    GREEDY_STEPS,
    SHORTLIST,
    Array,
    TranslationGraphs,
)


class ReferenceCache:
    """Caches of running sentences, ``width`` rows each, packed from the first row on."""

    def __init__(
        self,
        graphs: TranslationGraphs,
        step: str,
        width: int,
        max_sentences: int,
        max_source_tokens: int,
        max_target_tokens: int,
        uses_shortlists: bool = False,
    ) -> None:
        """``step`` is the graph of the steps; one with shortlists may be given all tokens."""
        sizes = graphs.sizes
        heads, head_dim = sizes.num_heads, sizes.head_dim
        self._suffixes = [step_suffix(i) for i in range(graphs.num_step_tokens(step))]
        # The last tokens of a step may lie behind the end of the longest output.
        max_positions = max_target_tokens + len(self._suffixes) - 1
        own = (max_sentences, width, heads, max_positions, head_dim)
        cross = (max_sentences, heads, max_source_tokens, head_dim)
        self._graphs, self.graph, self._width, self._count = graphs, step, width, 0
        self._past: list[Array] = [np.zeros(own, graphs.cache_type) for _ in graphs.cache_names]
        self._cross: list[Array] = [np.zeros(cross, graphs.cache_type) for _ in graphs.cross_names]
        self._source_lengths = np.zeros(max_sentences, np.int64)
        self._uses_shortlists = uses_shortlists
        self._may_use = np.ones((max_sentences, sizes.vocab_size), np.bool_)

    def join(self, sources: Sequence[Sequence[int]]) -> None:
        """Encode ``sources`` together and put them into the next free slots."""
        encoded = self._graphs.encode(sources)
        listed = self._graphs.shortlists(sources) if self._uses_shortlists else None
        for i, source in enumerate(sources):
            if listed is not None:
                self._may_use[self._count] = False
                # A step is asked for as many candidates.
                self._may_use[self._count, : 2 * self._width] = True
                self._may_use[self._count, listed[i]] = True
            for memory, new in zip(self._cross, encoded, strict=True):
                memory[self._count, :, : len(source)] = new[i, :, : len(source)]
            self._source_lengths[self._count] = len(source)
            self._count += 1

    def leave(self, slot: int) -> None:
        """Free ``slot`` and move the last one into the hole."""
        self._count -= 1
        memories: list[Array] = [*self._past, *self._cross, self._source_lengths, self._may_use]
        for memory in memories:
            memory[slot] = memory[self._count]

    def reorder(self, slot: int, parents: Sequence[int]) -> None:
        """Make row i of ``slot`` continue what was its row ``parents[i]``."""
        for memory in self._past:
            memory[slot] = memory[slot, parents]

    def step(
        self, tokens: Sequence[int], lengths: Sequence[int], num_candidates: int
    ) -> tuple[Array, Array]:
        """Feed one token to every row; ``lengths`` tokens are in its cache already.

        Returns ids and log-probabilities of the best candidates, (slots, width, candidates) each;
        of ``greedy_steps`` the best of each of its steps instead. Nothing is suppressed here.
        """
        inputs = {
            "tokens": np.array(tokens, np.int64),
            "lengths": np.array(lengths, np.int32),
            "total_length": np.array([max(lengths) + 1], np.int32),
            "source_lengths": self._source_lengths[: self._count],
        }
        for suffix in self._suffixes:
            inputs[f"adjusted_positions{suffix}"] = np.zeros((0, 2), np.int64)
            inputs[f"adjustments{suffix}"] = np.zeros(0, np.float32)
        if not self.graph.endswith(GREEDY_STEPS):
            inputs["num_candidates"] = np.array([num_candidates], np.int64)
        if self.graph.startswith(SHORTLIST):
            may_use = self._may_use[: self._count]
            inputs["shortlist"] = listed = np.flatnonzero(may_use.any(axis=0))
            inputs["may_use"] = np.repeat(may_use[:, listed], self._width, axis=0)
        if not self.graph.endswith(DECODER_STEP):
            longest = self._source_lengths[: self._count].max()
            inputs["total_source_length"] = np.array([longest], np.int32)
        session = self._graphs.steps[self.graph]
        binding = session.io_binding()
        binding.bind_output("candidate_ids")
        binding.bind_output("candidate_log_probabilities")
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        self._bind_caches(binding)
        session.run_with_iobinding(binding)
        ids, log_p = (value.numpy() for value in binding.get_outputs()[:2])
        shape = (self._count, self._width, -1)
        return ids.reshape(shape), log_p.reshape(shape)

    def _bind_caches(self, binding: ort.IOBinding) -> None:
        graphs, rows = self._graphs, self._count * self._width
        for name, memory in zip(graphs.cross_names, self._cross, strict=True):
            shape = (self._count, *memory.shape[1:])
            where = ("cpu", 0, graphs.cache_type, shape, memory.ctypes.data)
            binding.bind_input(name, *where)
            if not self.graph.endswith(DECODER_STEP):
                for suffix in self._suffixes:
                    binding.bind_output(f"present_{name}{suffix}", *where)
        for name, memory in zip(graphs.cache_names, self._past, strict=True):
            # Past and present are one memory: the graph writes the new keys and values in place.
            where = ("cpu", 0, graphs.cache_type, (rows, *memory.shape[2:]), memory.ctypes.data)
            binding.bind_input(f"past_{name}", *where)
            for suffix in self._suffixes:
                binding.bind_output(f"present_{name}{suffix}", *where)
