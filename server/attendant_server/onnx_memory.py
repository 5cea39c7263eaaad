"""What decoder memories have in common, the bound step, and the memory on the host.

Knows graphs and arrays, and nothing of requests, search or scheduling.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from attendant_server.engine.models import Candidates, PastCopy, StepInput
from attendant_server.onnx_sessions import Buffer, Tensor
from attendant_server.onnx_shortlists import Listed, Shortlists
from attendant_server.onnx_threads import ThreadedGraph

SMALLEST_NUM_POSITIONS = 16
"""Positions of the smallest buffer that grows with what it holds; each next size is twice as long.
A kernel's work may follow the length of the buffer."""
MAX_BINDINGS = 256
"""Bound steps that one memory keeps, a few kilobytes each; beyond, it begins anew."""


@dataclass(frozen=True, slots=True)
class CacheSizes:
    """The shape of all caches of one model. Limits are inclusive."""

    num_layers: int
    num_heads: int
    head_dim: int
    max_source_tokens: int
    max_target_positions: int
    dtype: np.dtype[np.generic]

    @property
    def names(self) -> list[str]:
        """Keys and values of every layer, in the order of the caches."""
        layers = range(self.num_layers)
        return [f"{kind}_{layer}" for layer in layers for kind in ("key", "value")]

    def most_bytes(self, width: int, max_blocks: int) -> int:
        """Memory of caches for so many sentences of ``width`` rows, each as long as it may be."""
        positions = max_blocks * (width * self.max_target_positions + self.max_source_tokens)
        position_bytes = self.num_heads * self.head_dim * self.dtype.itemsize
        return len(self.names) * positions * position_bytes


class StepInputs:
    """The small inputs of the decoder step, at addresses that stay, for all rows of a memory."""

    def __init__(self, max_rows: int, max_blocks: int, device: str | None = None) -> None:
        """Keep them on the host, or write them to ``device`` with one copy a step."""
        num_words = max_rows + max_blocks + (max_rows + 1) // 2
        self._words = np.zeros(num_words, dtype=np.int64)
        self.tokens = self._words[:max_rows]
        self.source_lengths = self._words[max_rows : max_rows + max_blocks]
        self.lengths = self._words[max_rows + max_blocks :].view(np.int32)
        # The graphs want these on the host.
        self.total_length = np.zeros(1, dtype=np.int32)
        self.total_source_length = np.zeros(1, dtype=np.int32)
        self._buffer = Buffer(num_words, device) if device is not None else None

    def write(self, num_blocks: int, step_input: StepInput) -> None:
        """Take over what one step is given, but for its adjustments."""
        num_rows = len(step_input.tokens)
        self.tokens[:num_rows] = step_input.tokens
        self.lengths[:num_rows] = step_input.lengths
        self.total_length[0] = step_input.lengths.max() + 1
        # Were it 1 beside a longer source, ONNX Runtime would take all sources for empty ones and
        # write to their first position.
        self.total_source_length[0] = self.source_lengths[:num_blocks].max()
        if self._buffer is not None:
            self._buffer.write(self._words)

    def tensor(self, part: NDArray[np.generic]) -> Tensor:
        """Where the graph reads ``part``, the beginning of one of the inputs."""
        if self._buffer is None:
            return Tensor.of(part)
        offset_bytes = part.ctypes.data - self._words.ctypes.data
        return self._buffer.tensor(part.dtype, part.shape, offset_bytes)


def check_places(decoder_step: onnxruntime.InferenceSession, device: str) -> None:
    """Raise ValueError unless the graph reads in place what `StepInputs` writes in place.

    What it reads elsewhere is copied once, when it is bound, and would never change again.
    """
    inputs = zip(decoder_step.get_inputs(), decoder_step.get_input_memory_infos(), strict=True)
    places = {value.name: place.name.lower() for value, place in inputs}
    for name in ("tokens", "lengths", "source_lengths"):
        if places[name] != device:
            raise ValueError(f"decoder_step reads {name} from {places[name]}, not from {device}")
    if places["total_length"] == "cuda":
        raise ValueError("decoder_step reads total_length from cuda, not from the host")


@dataclass(frozen=True, slots=True)
class StepKind:
    """What one graph of steps wants and gives, as its inputs and outputs tell."""

    num_tokens: int
    """Tokens that it decodes for each row in one run."""
    takes_num_candidates: bool
    takes_sources_as_pasts: bool
    """It binds the memory of the sources for writing, too, and reads no further than each."""
    takes_shortlist: bool
    """It scores the tokens that its rows may use and no others."""

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession) -> "StepKind":
        """The kind of a step graph that is open."""
        inputs = {value.name for value in session.get_inputs()}
        (found,) = (v.shape for v in session.get_outputs() if v.name == "candidate_ids")
        takes_num_candidates = "num_candidates" in inputs
        num_tokens = 1 if takes_num_candidates else found[1]
        return cls(
            num_tokens, takes_num_candidates, "total_source_length" in inputs, "shortlist" in inputs
        )

    @property
    def suffixes(self) -> list[str]:
        """What the names of the inputs and outputs for each of the tokens end with."""
        return ["", *(f"_{i}" for i in range(1, self.num_tokens))]


class BoundStep:
    """The decoder step bound to the first rows of one memory, to be run any number of times.

    ONNX Runtime reads and writes bound memory when it runs: what changes from step to step is
    written in place, and only lists of tokens and adjustments, which are rare, are bound again.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: StepInputs,
        num_rows: int,
        num_blocks: int,
        num_candidates: int,
        kind: StepKind,
    ) -> None:
        self._session, self._binding, self._kind = session, session.io_binding(), kind
        num_found = num_candidates if kind.takes_num_candidates else kind.num_tokens
        self._num_candidates = np.array([num_candidates], dtype=np.int64)
        self._token_ids = np.zeros((num_rows, num_found), dtype=np.int64)
        self._log_probabilities = np.zeros((num_rows, num_found), dtype=np.float32)
        self._adjusted = dict.fromkeys(kind.suffixes, True)
        self._read("tokens", inputs.tensor(inputs.tokens[:num_rows]))
        self._read("lengths", inputs.tensor(inputs.lengths[:num_rows]))
        self._read("source_lengths", inputs.tensor(inputs.source_lengths[:num_blocks]))
        self._read("total_length", Tensor.of(inputs.total_length))
        if kind.takes_sources_as_pasts:
            self._read("total_source_length", Tensor.of(inputs.total_source_length))
        if kind.takes_num_candidates:
            self._read("num_candidates", Tensor.of(self._num_candidates))
        self._write("candidate_ids", Tensor.of(self._token_ids))
        self._write("candidate_log_probabilities", Tensor.of(self._log_probabilities))

    def bind_caches(self, name: str, past: Tensor, cross: Tensor) -> None:
        """Bind the caches ``name``; what the step appends to ``past`` is written in place."""
        self._read(f"past_{name}", past)
        self._read(f"cross_{name}", cross)
        for suffix in self._kind.suffixes:
            self._write(f"present_{name}{suffix}", past)
            if self._kind.takes_sources_as_pasts:
                self._write(f"present_cross_{name}{suffix}", cross)

    def run(self, step_input: StepInput, listed: Listed | None = None) -> Candidates:
        """One step, with a graph that takes it among ``listed``; overwritten by the next."""
        positions = [each.positions for each in step_input.adjustments]  # Bindings hold no memory.
        if listed is not None:
            self._read("shortlist", Tensor.of(listed.token_ids))
            self._read("may_use", Tensor.of(listed.may_use))
            positions = [listed.columns(each) for each in positions]
        adjusted = zip(self._kind.suffixes, positions, step_input.adjustments, strict=True)
        for suffix, places, adjustments in adjusted:
            has_any = len(adjustments.values) > 0
            if has_any or self._adjusted[suffix]:
                self._read(f"adjusted_positions{suffix}", Tensor.of(places))
                self._read(f"adjustments{suffix}", Tensor.of(adjustments.values))
                self._adjusted[suffix] = has_any
        self._session.run_with_iobinding(self._binding)
        return Candidates(self._token_ids, self._log_probabilities)

    def _read(self, name: str, tensor: Tensor) -> None:
        tensor.bind_input(self._binding, name)

    def _write(self, name: str, tensor: Tensor) -> None:
        tensor.bind_output(self._binding, name)


def doubled(smallest: int, wanted: int, most: int) -> int:
    """The first of ``smallest``, twice that, and so on, that is enough; no more than ``most``."""
    size = smallest
    while size < wanted:
        size *= 2
    return min(size, most)


@dataclass(frozen=True, slots=True)
class EncodedSentence:
    """Cross-attention keys and values of one source, for every decoder layer in turn."""

    keys_values: list[NDArray[np.generic]]  # each (heads, source, head_dim)
    num_tokens: int
    shortlist: NDArray[np.integer] | None = None
    """Token ids, not all different, that the translation may use; None for any."""


class HostDecoderMemory:
    """The caches of sentences searched with one width, and the steps over them.

    Self-attention caches are (rows, heads, max_target_positions, head_dim); a step is bound to the
    first rows and writes the new key and value in place. Cross-attention buffers are
    (blocks, heads, source, head_dim): ``source`` is a size that fits the longest source, and the
    sizes are views of the same memory. ``decoder_step`` computes with whole buffers, so it gets the
    smallest that fits the running sources; a graph that takes sources as pasts reads no further
    than each source, and its buffers only grow.
    """

    def __init__(
        self,
        graph: ThreadedGraph,
        sizes: CacheSizes,
        width: int,
        max_blocks: int,
        vocab_size: int,
    ) -> None:
        """Allocate the caches for ``max_blocks`` sentences of ``width`` rows.

        ``graph`` is ``decoder_step`` or, for a width of 1, one of the greedy ones.
        """
        self._graph, self._sizes, self._kind = graph, sizes, StepKind.of(graph.beside)
        self._width, self._max_blocks = width, max_blocks
        self.num_step_tokens = self._kind.num_tokens
        heads, head_dim = sizes.num_heads, sizes.head_dim
        shape = (max_blocks * width, heads, sizes.max_target_positions, head_dim)
        num_tensors = len(sizes.names)
        # One array for all layers, so that a row moves with one copy.
        self._past = np.zeros((num_tensors, *shape), dtype=sizes.dtype)
        size = max_blocks * heads * sizes.max_source_tokens * head_dim
        self._cross_memory = np.zeros((num_tensors, size), dtype=sizes.dtype)
        self._inputs = StepInputs(max_blocks * width, max_blocks)
        self._source_lengths = self._inputs.source_lengths
        takes_shortlist = self._kind.takes_shortlist
        self._shortlists = Shortlists(max_blocks, width, vocab_size) if takes_shortlist else None
        self._bindings: dict[tuple[int, ...], BoundStep] = {}
        self._cross = self._cross_view(doubled(SMALLEST_NUM_POSITIONS, 1, sizes.max_source_tokens))

    @property
    def num_bytes(self) -> int:
        """Memory of all caches."""
        return self._past.nbytes + self._cross_memory.nbytes

    def release(self) -> None:
        """Keep everything: what no step has touched is not resident."""

    def load(self, block: int, source: EncodedSentence) -> None:
        """Put an encoded source into a block."""
        self._source_lengths[block] = source.num_tokens
        if self._shortlists is not None:
            assert source.shortlist is not None
            self._shortlists.load(block, source.shortlist)
        self._fit(block + 1, int(self._source_lengths[: block + 1].max()))
        for cross, keys_values in zip(self._cross, source.keys_values, strict=True):
            cross[block, :, : source.num_tokens] = keys_values
            if not self._kind.takes_sources_as_pasts:
                # Masked positions still enter products, with a weight of zero, and zero times
                # what a broken source left there would be NaN for its successor.
                cross[block, :, source.num_tokens :] = 0

    def move(self, origin: int, block: int, num_positions: int) -> None:
        """Move a block whose rows hold ``num_positions`` tokens."""
        target, source = self._rows(block), self._rows(origin)
        self._past[:, target, :, :num_positions] = self._past[:, source, :, :num_positions]
        self._source_lengths[block] = self._source_lengths[origin]
        if self._shortlists is not None:
            self._shortlists.move(origin, block)
        length = self._cross[0].shape[2]
        if self._kind.takes_sources_as_pasts:
            length = int(self._source_lengths[origin])
        for cross in self._cross:
            cross[block, :, :length] = cross[origin, :, :length]

    def copy(self, copies: Sequence[PastCopy]) -> None:
        """Copy pasts between rows; none that is read is written as well."""
        past = self._past
        for row, parent, start, stop in copies:
            past[:, row, :, start:stop] = past[:, parent, :, start:stop]

    def step(self, num_blocks: int, step_input: StepInput) -> Candidates:
        """Run the decoder over the first ``num_blocks`` blocks; the answer lives until the next."""
        with self._graph.session() as session:
            return self.step_with(session, num_blocks, step_input)

    def step_with(
        self, session: onnxruntime.InferenceSession, num_blocks: int, step_input: StepInput
    ) -> Candidates:
        """`step` with one of the graph's sessions."""
        self._inputs.write(num_blocks, step_input)
        self._fit(num_blocks, int(self._inputs.total_source_length[0]))
        key = (id(session), num_blocks, self._cross[0].shape[2], step_input.num_candidates)
        bound = self._bindings.get(key)
        if bound is None:
            if len(self._bindings) == MAX_BINDINGS:
                self._bindings.clear()
            bound = self._bind(session, num_blocks, step_input.num_candidates)
            self._bindings[key] = bound
        listed = None if self._shortlists is None else self._shortlists.of_first(num_blocks)
        return bound.run(step_input, listed)

    def _bind(
        self, session: onnxruntime.InferenceSession, num_blocks: int, num_candidates: int
    ) -> BoundStep:
        num_rows = num_blocks * self._width
        bound = BoundStep(session, self._inputs, num_rows, num_blocks, num_candidates, self._kind)
        for name, past, cross in zip(self._sizes.names, self._past, self._cross, strict=True):
            bound.bind_caches(name, Tensor.of(past[:num_rows]), Tensor.of(cross[:num_blocks]))
        return bound

    def _rows(self, block: int) -> slice:
        return slice(block * self._width, (block + 1) * self._width)

    def _cross_view(self, num_positions: int) -> list[NDArray[np.generic]]:
        sizes = self._sizes
        shape = (self._max_blocks, sizes.num_heads, num_positions, sizes.head_dim)
        size = int(np.prod(shape))
        return [memory[:size].reshape(shape) for memory in self._cross_memory]

    def _fit(self, num_blocks: int, longest: int) -> None:
        """Lay the cross-attention buffers of the first blocks out for their longest source."""
        size = doubled(SMALLEST_NUM_POSITIONS, longest, self._sizes.max_source_tokens)
        old = self._cross[0].shape[2]
        if size == old or (size < old and self._kind.takes_sources_as_pasts):
            return
        resized = self._cross_view(size)
        kept = min(old, size)
        # Both layouts share memory: a growing one is written from its end, a shrinking one from
        # its beginning, so that no block is overwritten before it has moved.
        order = range(num_blocks) if size < old else range(num_blocks - 1, -1, -1)
        for before, after in zip(self._cross, resized, strict=True):
            for block in order:
                after[block, :, :kept] = before[block, :, :kept].copy()
                after[block, :, kept:] = 0
        self._cross = resized
