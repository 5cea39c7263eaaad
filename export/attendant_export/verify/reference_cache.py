"""Cache memory for a search with the graphs of a decoder.

Binds inputs and outputs by the signature of a step. Works on token ids and does not depend on a
search.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from attendant.v1.bundle_pb2 import (
    STATE_OWNER_ROW,
    STATE_OWNER_SOURCE,
    STATE_UPDATE_REPLACED,
    StateTensor,
)

from attendant_export.graphs.step_interface import TYPES
from attendant_export.verify.graph_sessions import (
    Array,
    DecoderGraphs,
    StepSession,
    TranslationGraphs,
)

MAX_CACHE_BYTES = 2**27
"""Memory of the caches of sentences that are searched together."""
FORCED = 1e4
"""Added to the log-probability of a forced token."""


class ReferenceCache:
    """Caches of running sentences in slots of ``width`` rows. The first slots are occupied."""

    def __init__(
        self,
        graphs: DecoderGraphs,
        step: str,
        width: int,
        max_sentences: int,
        max_source_tokens: int,
        max_target_tokens: int,
        uses_shortlists: bool = False,
        suppressed_token_ids: Sequence[int] = (),
    ) -> None:
        """``step`` is the step graph. Without ``uses_shortlists``, its lists hold all tokens."""
        self._graphs, self._step, self._width, self._count = graphs, graphs.steps[step], width, 0
        self.graph = step
        # A run of several tokens may write positions beyond the end of the longest output.
        num_tokens = max_target_tokens + graphs.num_step_tokens(step) - 1
        max_positions = graphs.num_past(max_source_tokens) + num_tokens
        self._past = _memory(
            self._step.states(STATE_OWNER_ROW), (max_sentences, width), max_positions
        )
        self._sources = _memory(
            self._step.states(STATE_OWNER_SOURCE), (max_sentences,), max_source_tokens
        )
        self._num_positions = 0
        """Number of positions that a row can have written."""
        self._source_lengths = np.zeros(max_sentences, np.int64)
        self._uses_shortlists = uses_shortlists
        self._suppressed = np.array(sorted(suppressed_token_ids), np.int64)
        self._may_use = np.ones((max_sentences, graphs.vocab_size), np.bool_)

    def join(self, sources: Sequence[Sequence[int]]) -> None:
        """Encode ``sources`` together and put them into the next free slots."""
        encoded = self._graphs.encode_states(sources)
        listed = None
        if self._uses_shortlists:
            assert isinstance(self._graphs, TranslationGraphs)
            listed = self._graphs.shortlists(sources)
        for i, source in enumerate(sources):
            if listed is not None:
                self._may_use[self._count] = False
                # The mask must allow at least the requested number of candidates.
                self._may_use[self._count, : 2 * self._width] = True
                self._may_use[self._count, listed[i]] = True
            for state, memory in self._past:
                if state.update == STATE_UPDATE_REPLACED:
                    first = encoded.get(state.encoder_output)
                    memory[self._count] = 0 if first is None else first[i]
                elif state.encoder_output:
                    read = _first_positions(state, self._graphs.num_past(len(source)))
                    memory[self._count][:, *read] = encoded[state.encoder_output][i][read]
            for state, memory in self._sources:
                real = _first_positions(state, len(source))
                memory[self._count][real] = encoded[state.encoder_output][i][real]
            self._source_lengths[self._count] = len(source)
            self._count += 1

    def leave(self, slot: int) -> None:
        """Free ``slot`` and move the last slot into the gap."""
        self._count -= 1
        if slot == self._count:
            return
        for state, memory in self._past:
            used = _first_positions(state, self._num_positions)
            memory[slot][:, *used] = memory[self._count][:, *used]
        for state, memory in self._sources:
            used = _first_positions(state, int(self._source_lengths[self._count]))
            memory[slot][used] = memory[self._count][used]
        for memory in (self._source_lengths, self._may_use):
            memory[slot] = memory[self._count]

    def reorder(self, slot: int, parents: Sequence[int]) -> None:
        """Copy row ``parents[i]`` of ``slot`` to its row i, for all i at once."""
        if list(parents) == list(range(self._width)):
            return
        for state, memory in self._past:
            # Memory takes room only once it is written, so the other positions are left alone.
            used = _first_positions(state, self._num_positions)
            memory[slot][:, *used] = memory[slot][list(parents), *used]

    @property
    def num_step_tokens(self) -> int:
        """Number of tokens that one run decodes for each row."""
        return self._graphs.num_step_tokens(self.graph)

    def step(
        self,
        tokens: Sequence[int],
        lengths: Sequence[int],
        num_candidates: int,
        forced: Sequence[Sequence[int]] = (),
        banned: Sequence[Collection[int]] = (),
        penalized: Sequence[Collection[int]] = (),
        penalty: float = 1.0,
    ) -> tuple[Array, Array]:
        """Decode one token for every row, whose cache already holds ``lengths`` tokens.

        Returns ids and log-probabilities of the best candidates, each (slots, width, candidates).
        A graph of several tokens returns the best token of each step instead. ``forced`` holds the
        first tokens that each row must choose, and ``banned`` those that it must not choose next,
        in a search without shortlists. ``penalized`` holds the tokens of each row to which
        ``penalty`` applies; a graph that takes penalties returns scores for log-probabilities.
        """
        self._num_positions = max(self._num_positions, max(lengths) + self.num_step_tokens)
        outputs = self._step.signature.outputs
        session = self._graphs.use(self._step.session)
        inputs = self._inputs(tokens, lengths, num_candidates, forced, banned)
        inputs |= self._penalties(penalized, penalty)
        with session.naming_errors():
            binding = session.io_binding()
            binding.bind_output(outputs.candidate_ids)
            # Without penalties and token biases, the scores are the log-probabilities.
            binding.bind_output(outputs.candidate_scores or outputs.candidate_log_probabilities)
            for name, array in inputs.items():
                binding.bind_cpu_input(name, array)
            replaced = []
            for state, memory in self._past:
                written = memory
                if state.update == STATE_UPDATE_REPLACED:
                    written = np.empty_like(memory)
                    replaced.append((memory, written))
                num_rows, shape = self._count * self._width, memory.shape[2:]
                _bind(binding, state, memory, written, (num_rows, *shape))
            for state, memory in self._sources:
                _bind(binding, state, memory, memory, (self._count, *memory.shape[1:]))
            session.run_with_binding(binding)
            ids, log_p = (value.numpy() for value in binding.get_outputs()[:2])
            for memory, written in replaced:
                memory[: self._count] = written[: self._count]
        shape = (self._count, self._width, -1)
        return ids.reshape(shape), log_p.reshape(shape)

    def _inputs(
        self,
        tokens: Sequence[int],
        lengths: Sequence[int],
        num_candidates: int,
        forced: Sequence[Sequence[int]],
        banned: Sequence[Collection[int]],
    ) -> dict[str, Array]:
        """The inputs other than states, by their names in the signature."""
        names = self._step.signature.inputs
        source_lengths, may_use = self._source_lengths[: self._count], self._may_use[: self._count]
        listed = np.flatnonzero(may_use.any(axis=0)) if names.shortlist else np.zeros(0, np.int64)
        arrays: dict[str, Array] = {
            names.tokens: np.array(tokens, np.int64),
            names.past_lengths: np.array(lengths, np.int32),
            names.total_length: np.array([max(lengths) + 1], np.int32),
            names.source_lengths: source_lengths,
            names.total_source_length: np.array([source_lengths.max()], np.int32),
            names.num_candidates: np.array([num_candidates], np.int64),
            names.shortlist: listed,
            names.shortlist_mask: np.repeat(may_use[:, listed], self._width, axis=0),
        }
        suppressed = self._suppressed
        if names.shortlist:
            suppressed = np.flatnonzero(np.isin(listed, suppressed))
        rows = np.arange(len(tokens)).repeat(len(suppressed))
        never = np.stack([rows, np.tile(suppressed, len(tokens))], axis=1)
        more = [(row, token) for row, ids in enumerate(banned) for token in ids]
        never = np.concatenate([never, np.array(more, np.int64).reshape(-1, 2)])
        for i, bias in enumerate(names.token_biases):
            chosen = [(row, ids[i]) for row, ids in enumerate(forced) if i < len(ids)]
            always = np.array(chosen, np.int64).reshape(-1, 2)
            arrays[bias.indices] = np.concatenate([never, always])
            values = [-np.inf] * len(never) + [FORCED] * len(always)
            arrays[bias.values] = np.array(values, np.float32)
        arrays.pop("", None)  # inputs that this graph does not have
        return arrays

    def _penalties(self, tokens: Sequence[Collection[int]], penalty: float) -> dict[str, Array]:
        """The inputs of a graph that takes repetition penalties."""
        step = self._step.signature
        if not step.inputs.HasField("repetition_penalty"):
            assert not any(tokens)
            return {}
        names = step.inputs.repetition_penalty
        indices = [(row, token) for row, ids in enumerate(tokens) for token in ids]
        return {
            names.indices: np.array(indices, np.int64).reshape(-1, 2),
            names.values: np.full(len(indices), penalty, np.float32),
            names.penalizes_logits: np.array([self._width == 1]),
        }


def sentences_in_memory(
    graphs: DecoderGraphs, step: StepSession, width: int, max_source_tokens: int, max_tokens: int
) -> int:
    """Number of sentences of ``width`` rows whose caches take at most `MAX_CACHE_BYTES`.

    ``max_tokens`` limits the tokens of an output.
    """
    num_positions = graphs.num_past(max_source_tokens) + max_tokens
    row = sum(_bytes(state, num_positions) for state in step.states(STATE_OWNER_ROW))
    source = sum(_bytes(state, max_source_tokens) for state in step.states(STATE_OWNER_SOURCE))
    return MAX_CACHE_BYTES // (width * row + source)


def _bytes(state: StateTensor, num_positions: int) -> int:
    sizes = (size or num_positions for size in state.shape)
    return math.prod(sizes) * np.dtype(TYPES[state.data_type]).itemsize


def _memory(
    states: Sequence[StateTensor], leading: tuple[int, ...], max_positions: int
) -> list[tuple[StateTensor, np.ndarray[Any, Any]]]:
    return [
        (
            state,
            np.zeros(
                (*leading, *(size or max_positions for size in state.shape)), TYPES[state.data_type]
            ),
        )
        for state in states
    ]


def _first_positions(state: StateTensor, num_positions: int) -> tuple[slice, ...]:
    """The index of the first positions of one entry."""
    return tuple(slice(None) if size else slice(num_positions) for size in state.shape)


def _bind(
    binding: ort.IOBinding,
    state: StateTensor,
    memory: np.ndarray[Any, Any],
    written: np.ndarray[Any, Any],
    shape: tuple[int, ...],
) -> None:
    """Bind the first entries of the memory that the graph reads, and of that which it writes."""
    binding.bind_input(state.input, "cpu", 0, memory.dtype.type, shape, memory.ctypes.data)
    for output in state.outputs:
        binding.bind_output(output, "cpu", 0, written.dtype.type, shape, written.ctypes.data)
