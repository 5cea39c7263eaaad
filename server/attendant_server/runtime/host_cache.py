"""What decoder memories have in common, the bound step, and the memory on the host.

Knows graphs and arrays, and nothing of requests, search or scheduling.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from attendant_server.engine.models import CacheCopy, Candidates, StepInput
from attendant_server.runtime.cache_sizes import SMALLEST_NUM_POSITIONS, CacheSizes, doubled
from attendant_server.runtime.sessions import Tensor
from attendant_server.runtime.shortlists import Shortlists
from attendant_server.runtime.step import BoundStep, StepInputs, StepRunner

MAX_BINDINGS = 256
"""Bound steps that one memory keeps, a few kilobytes each; beyond, it begins anew."""


@dataclass(frozen=True, slots=True)
class EncodedSentence:
    """Cross-attention keys and values of one source, for every decoder layer in turn."""

    keys_values: list[NDArray[np.generic]]  # each (heads, source, head_dim)
    num_tokens: int
    shortlist: NDArray[np.integer] | None = None
    """Token ids, not all different, that the translation may use; None for any."""


class HostDecoderCache:
    """The caches of sentences searched with one width, and the steps over them.

    Self-attention caches are (rows, heads, max_target_positions, head_dim); a step is bound to the
    first rows and writes the new key and value in place. Cross-attention buffers are
    (slots, heads, source, head_dim): ``source`` is a size that fits the longest source, and the
    sizes are views of the same memory. ``decoder_step`` computes with whole buffers, so it gets the
    smallest that fits the running sources; a graph that takes sources as pasts reads no further
    than each source, and its buffers only grow.
    """

    def __init__(
        self,
        graph: StepRunner,
        sizes: CacheSizes,
        width: int,
        max_slots: int,
        vocab_size: int,
    ) -> None:
        """Allocate the caches for ``max_slots`` sentences of ``width`` rows.

        ``graph`` is ``decoder_step`` or, for a width of 1, one of the greedy ones.
        """
        self._graph, self._sizes, self._signature = graph, sizes, graph.signature
        self._width, self._max_slots = width, max_slots
        self.num_step_tokens = self._signature.num_tokens
        heads, head_dim = sizes.num_heads, sizes.head_dim
        shape = (max_slots * width, heads, sizes.max_target_positions, head_dim)
        num_tensors = sizes.num_tensors
        # One array for all layers, so that a row moves with one copy.
        self._past = np.zeros((num_tensors, *shape), dtype=sizes.dtype)
        size = max_slots * heads * sizes.max_source_tokens * head_dim
        self._cross_buffer = np.zeros((num_tensors, size), dtype=sizes.dtype)
        self._inputs = StepInputs(max_slots * width, max_slots)
        self._source_lengths = self._inputs.source_lengths
        takes_shortlist = self._signature.takes_shortlist
        self._shortlists = Shortlists(max_slots, width, vocab_size) if takes_shortlist else None
        self._bindings: dict[tuple[int, ...], BoundStep] = {}
        self._cross = self._cross_view(doubled(SMALLEST_NUM_POSITIONS, 1, sizes.max_source_tokens))

    @property
    def num_bytes(self) -> int:
        """Memory of all caches."""
        return self._past.nbytes + self._cross_buffer.nbytes

    def release(self) -> None:
        """Keep everything: what no step has touched is not resident."""

    def load(self, slot: int, source: EncodedSentence) -> None:
        """Put an encoded source into a slot."""
        self._source_lengths[slot] = source.num_tokens
        if self._shortlists is not None:
            assert source.shortlist is not None
            self._shortlists.load(slot, source.shortlist)
        self._fit(slot + 1, int(self._source_lengths[: slot + 1].max()))
        for cross, keys_values in zip(self._cross, source.keys_values, strict=True):
            cross[slot, :, : source.num_tokens] = keys_values
            if not self._signature.writes_sources:
                # Masked positions still enter products, with a weight of zero, and zero times
                # what a broken source left there would be NaN for its successor.
                cross[slot, :, source.num_tokens :] = 0

    def move(self, origin: int, slot: int, num_positions: int) -> None:
        """Move a slot whose rows hold ``num_positions`` tokens."""
        target, source = self._rows(slot), self._rows(origin)
        self._past[:, target, :, :num_positions] = self._past[:, source, :, :num_positions]
        self._source_lengths[slot] = self._source_lengths[origin]
        if self._shortlists is not None:
            self._shortlists.move(origin, slot)
        length = self._cross[0].shape[2]
        if self._signature.writes_sources:
            length = int(self._source_lengths[origin])
        for cross in self._cross:
            cross[slot, :, :length] = cross[origin, :, :length]

    def copy(self, copies: Sequence[CacheCopy]) -> None:
        """Copy pasts between rows; none that is read is written as well."""
        past = self._past
        for row, parent, start, stop in copies:
            past[:, row, :, start:stop] = past[:, parent, :, start:stop]

    def step(self, num_slots: int, step_input: StepInput) -> Candidates:
        """Run the decoder over the first ``num_slots`` slots; the answer lives until the next."""
        with self._graph.session() as session:
            return self.step_with(session, num_slots, step_input)

    def step_with(
        self, session: onnxruntime.InferenceSession, num_slots: int, step_input: StepInput
    ) -> Candidates:
        """`step` with one of the graph's sessions."""
        self._inputs.write(num_slots, step_input)
        self._fit(num_slots, int(self._inputs.total_source_length[0]))
        key = (id(session), num_slots, self._cross[0].shape[2], step_input.num_candidates)
        bound = self._bindings.get(key)
        if bound is None:
            if len(self._bindings) == MAX_BINDINGS:
                self._bindings.clear()
            bound = self._bind(session, num_slots, step_input.num_candidates)
            self._bindings[key] = bound
        listed = None if self._shortlists is None else self._shortlists.of_first(num_slots)
        return bound.run(step_input, listed)

    def _bind(
        self, session: onnxruntime.InferenceSession, num_slots: int, num_candidates: int
    ) -> BoundStep:
        num_rows = num_slots * self._width
        bound = BoundStep(
            session, self._inputs, num_rows, num_slots, num_candidates, self._signature
        )
        bound.bind_caches(
            [Tensor.of(past[:num_rows]) for past in self._past],
            [Tensor.of(cross[:num_slots]) for cross in self._cross],
        )
        return bound

    def _rows(self, slot: int) -> slice:
        return slice(slot * self._width, (slot + 1) * self._width)

    def _cross_view(self, num_positions: int) -> list[NDArray[np.generic]]:
        sizes = self._sizes
        shape = (self._max_slots, sizes.num_heads, num_positions, sizes.head_dim)
        size = int(np.prod(shape))
        return [memory[:size].reshape(shape) for memory in self._cross_buffer]

    def _fit(self, num_slots: int, longest: int) -> None:
        """Lay the cross-attention buffers of the first slots out for their longest source."""
        size = doubled(SMALLEST_NUM_POSITIONS, longest, self._sizes.max_source_tokens)
        old = self._cross[0].shape[2]
        if size == old or (size < old and self._signature.writes_sources):
            return
        resized = self._cross_view(size)
        kept = min(old, size)
        # Both layouts share memory: a growing one is written from its end, a shrinking one from
        # its beginning, so that no slot is overwritten before it has moved.
        order = range(num_slots) if size < old else range(num_slots - 1, -1, -1)
        for before, after in zip(self._cross, resized, strict=True):
            for slot in order:
                after[slot, :, :kept] = before[slot, :, :kept].copy()
                after[slot, :, kept:] = 0
        self._cross = resized
