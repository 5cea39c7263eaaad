"""The common part of the decoder's caches on the host and on a device: bound steps.

Knows graphs and arrays, and nothing of requests, search or scheduling.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import onnxruntime

from attendant_server.engine.models import Candidates, StepInput
from attendant_server.runtime.cache_pool import CacheBuffer, CachePool, WidthBuffers
from attendant_server.runtime.model_graphs import ThreadedStep
from attendant_server.runtime.replaced_states import AlternatingStep, ReplacedStates, as_vectors
from attendant_server.runtime.sessions import Tensor
from attendant_server.runtime.shortlists import Shortlists
from attendant_server.runtime.step import BoundStep, StepInputBuffers

MAX_BINDINGS = 256
"""Bound steps that one cache keeps, a few kilobytes each. All are dropped when the limit is
reached."""

Buffer = TypeVar("Buffer", bound=CacheBuffer)


class OnnxDecoderCache(ABC, Generic[Buffer]):
    """The caches of sentences searched with one width, and the steps over them.

    Self-attention caches and replaced states hold an entry for each row, cross-attention caches one
    for each slot. A step is bound to the first entries of each. It writes new keys and values in
    place, and replaced states to their other copy.
    """

    def __init__(
        self,
        graph: ThreadedStep,
        width: int,
        inputs: StepInputBuffers,
        pool: CachePool,
        past: Buffer | None,
        replaced: Buffer | None,
        cross: Buffer | None,
    ) -> None:
        """``past`` and ``replaced`` are buffers in ``pool`` for rows, ``cross`` is for slots.

        The model has growing states, replaced states or both; without them the buffer is None.
        Without ``cross``, encoded sources are the first positions of ``past``, if there is one.
        """
        self._graph, self._signature, self._width = graph, graph.signature, width
        self.num_step_tokens = self._signature.num_tokens
        self.takes_penalties = self._signature.takes_penalties
        self.can_rewind = replaced is None
        self._num_extra_positions = self._signature.num_extra_positions
        self._inputs, self._source_lengths = inputs, inputs.source_lengths
        self._past, self._cross = past, cross
        self._replaced = None if replaced is None else ReplacedStates(replaced)
        rows = [buffer for buffer in (past, replaced) if buffer is not None]
        self._row_buffer = rows[0]
        """Its number of positions is the one that steps are bound to."""
        self._buffers = WidthBuffers(pool, width, rows, [] if cross is None else [cross])
        self._shortlists: Shortlists | None = None
        self._bindings: dict[tuple[int, ...], BoundStep | AlternatingStep] = {}
        self._last: BoundStep | AlternatingStep | None = None

    def _fit_source(self, slot: int, num_tokens: int) -> None:
        """Make room for an encoded source of ``num_tokens`` in a slot."""
        self._source_lengths[slot] = num_tokens
        fills_rows = self._cross is None and self._past is not None
        num_positions = num_tokens if fills_rows else 0
        # Before the first step of the rows, their buffer may move what they hold.
        self._inputs.lengths[slot * self._width : (slot + 1) * self._width] = num_positions
        longest_source = int(self._source_lengths[: slot + 1].max())
        self._buffers.fit_source(slot, num_positions, longest_source)

    def keep(self, num_slots: int, longest_row: int) -> None:
        """Keep the first ``num_slots`` slots, whose rows hold at most ``longest_row`` positions."""
        longest_source = int(self._source_lengths[:num_slots].max())
        self._buffers.keep(num_slots, longest_row, longest_source)

    def release(self) -> None:
        """Declare all slots unused."""
        self._buffers.release()

    def step(self, num_slots: int, step_input: StepInput) -> Candidates:
        """Run the decoder over the first slots; the next step overwrites the returned arrays."""
        with self._graph.session() as session:
            return self.step_with(session, num_slots, step_input)

    def step_with(
        self, session: onnxruntime.InferenceSession, num_slots: int, step_input: StepInput
    ) -> Candidates:
        """`step` with one of the graph's sessions."""
        inputs = self._inputs
        inputs.write(num_slots, step_input)
        longest_row = int(inputs.total_length[0]) + self._num_extra_positions
        self._buffers.fit_step(num_slots, longest_row, int(inputs.total_source_length[0]))
        key = (
            id(session),
            num_slots,
            self._row_buffer.num_positions,
            0 if self._cross is None else self._cross.num_positions,
            step_input.num_candidates,
        )
        bound = self._bindings.get(key)
        if bound is None:
            if len(self._bindings) == MAX_BINDINGS:
                self._unbind()
            bound = self._bind(session, num_slots, step_input.num_candidates)
            self._bindings[key] = bound
        listed = None
        if self._shortlists is not None:
            listed = self._shortlists.of_first(num_slots, step_input.num_candidates)
        if self._last is not bound:
            # Hundreds of bound steps would keep hundreds of lists in memory.
            if self._last is not None:
                self._last.forget()
            self._last = bound
        return bound.run(step_input, listed)

    def _bind(
        self, session: onnxruntime.InferenceSession, num_slots: int, num_candidates: int
    ) -> BoundStep | AlternatingStep:
        replaced = self._replaced
        if replaced is None:
            return self._bind_caches(session, num_slots, num_candidates)
        vectors = as_vectors(self._first_entries(replaced.buffer, num_slots * self._width))
        steps = []
        for read, written in ((0, 1), (1, 0)):
            bound = self._bind_caches(session, num_slots, num_candidates)
            each = vectors[replaced.copies(read)], vectors[replaced.copies(written)]
            bound.bind_states(self._signature.replaced_states, *each)
            steps.append(bound)
        return AlternatingStep(replaced, steps)

    def _bind_caches(
        self, session: onnxruntime.InferenceSession, num_slots: int, num_candidates: int
    ) -> BoundStep:
        """A step that is bound to all caches, which it writes in place."""
        num_rows, signature = num_slots * self._width, self._signature
        bound = BoundStep(session, self._inputs, num_rows, num_slots, num_candidates, signature)
        if self._past is not None:
            past = self._first_entries(self._past, num_rows)
            bound.bind_states(signature.growing_states, past, past)
        if self._cross is not None:
            cross = self._first_entries(self._cross, num_slots)
            bound.bind_states(signature.source_states, cross, cross)
        return bound

    def _unbind(self) -> None:
        """Drop all bound steps."""
        self._bindings.clear()
        self._last = None

    @abstractmethod
    def _first_entries(self, buffer: Buffer, num_entries: int) -> Sequence[Tensor]:
        """The memory of the first entries of each tensor of a buffer."""
