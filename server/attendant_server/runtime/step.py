"""One decoder step, bound to its inputs, outputs and caches."""

from collections.abc import Iterable, Sequence
from operator import is_

import numpy as np
import onnxruntime
from attendant.v1 import bundle_pb2
from numpy.typing import NDArray

from attendant_server.engine.models import Candidates, StepInput, TokenBias
from attendant_server.runtime.sessions import Buffer, Tensor
from attendant_server.runtime.shortlists import Listed
from attendant_server.runtime.signatures import StepSignature


class StepInputBuffers:
    """The small inputs of the decoder step, at fixed addresses, for the maximum number of rows."""

    def __init__(self, max_rows: int, max_slots: int, device: str | None = None) -> None:
        """Keep the inputs on the host, or write them to ``device`` with one copy per step."""
        num_words = max_rows + max_slots + (max_rows + 1) // 2
        self._words = np.zeros(num_words, dtype=np.int64)
        self.tokens = self._words[:max_rows]
        self.source_lengths = self._words[max_rows : max_rows + max_slots]
        self.lengths = self._words[max_rows + max_slots :].view(np.int32)
        # The graphs read these inputs on the host.
        self.total_length = np.zeros(1, dtype=np.int32)
        self.total_source_length = np.zeros(1, dtype=np.int32)
        self._buffer = Buffer(num_words, device) if device is not None else None

    def write(self, num_slots: int, step_input: StepInput) -> None:
        """Write the inputs of one step, except its token biases."""
        num_rows = len(step_input.tokens)
        self.tokens[:num_rows] = step_input.tokens
        self.lengths[:num_rows] = step_input.lengths
        self.total_length[0] = step_input.lengths.max() + 1
        # If this were 1 although a source is longer, ONNX Runtime would treat all sources as empty
        # and write to their first position.
        self.total_source_length[0] = self.source_lengths[:num_slots].max()
        if self._buffer is not None:
            self._buffer.write(self._words)

    def tensor(self, part: NDArray[np.generic]) -> Tensor:
        """The tensor that the graph reads for ``part``, a leading slice of one of the inputs."""
        if self._buffer is None:
            return Tensor.of(part)
        offset_bytes = part.ctypes.data - self._words.ctypes.data
        return self._buffer.tensor(part.dtype, part.shape, offset_bytes)


def check_input_devices(
    step: bundle_pb2.StepGraph, session: onnxruntime.InferenceSession, device: str
) -> None:
    """Raise ValueError unless the graph reads every input where `StepInputBuffers` writes it.

    An input on another device would be copied once, when it is bound, and never be updated.
    """
    inputs = zip(session.get_inputs(), session.get_input_memory_infos(), strict=True)
    devices = {value.name: info.name.lower() for value, info in inputs}
    names = step.inputs
    for name in filter(None, (names.tokens, names.past_lengths, names.source_lengths)):
        if devices[name] != device:
            raise ValueError(f"{step.name} reads {name} from {devices[name]}, not from {device}")
    if devices[names.total_length] == "cuda":
        raise ValueError(f"{step.name} reads {names.total_length} from cuda, not from the host")


class BoundStep:
    """A decoder step that is bound to the first rows of the caches and can run repeatedly.

    ONNX Runtime reads and writes bound memory during a run. So inputs that change at every step are
    written in place. Only penalties, and shortlists and token biases that differ from those of the
    last run, are bound again.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: StepInputBuffers,
        num_rows: int,
        num_slots: int,
        num_candidates: int,
        signature: StepSignature,
    ) -> None:
        self._session, self._binding, self._signature = session, session.io_binding(), signature
        num_found = num_candidates if signature.takes_num_candidates else signature.num_tokens
        self._num_candidates = np.array([num_candidates], dtype=np.int64)
        self._token_ids = np.zeros((num_rows, num_found), dtype=np.int64)
        self._log_probabilities = np.zeros((num_rows, num_found), dtype=np.float32)
        self._scores: NDArray[np.float32] | None = None
        names, outputs = signature.step.inputs, signature.step.outputs
        self._input_names = names
        self._listed: Listed | None = None
        self._biases: list[TokenBias | None] = [None] * signature.num_tokens
        self._bound: list[TokenBias] = []
        self._read(names.tokens, inputs.tensor(inputs.tokens[:num_rows]))
        self._read(names.past_lengths, inputs.tensor(inputs.lengths[:num_rows]))
        if names.source_lengths:
            self._read(names.source_lengths, inputs.tensor(inputs.source_lengths[:num_slots]))
        self._read(names.total_length, Tensor.of(inputs.total_length))
        if names.total_source_length:
            self._read(names.total_source_length, Tensor.of(inputs.total_source_length))
        if signature.takes_num_candidates:
            self._read(names.num_candidates, Tensor.of(self._num_candidates))
        self._write(outputs.candidate_ids, Tensor.of(self._token_ids))
        self._write(outputs.candidate_log_probabilities, Tensor.of(self._log_probabilities))
        if signature.takes_penalties:
            # Greedy search penalizes logits. It has one row for each sentence.
            self._penalizes_logits = np.array([num_rows == num_slots])
            self._scores = np.zeros_like(self._log_probabilities)
            self._read(names.repetition_penalty.penalizes_logits, Tensor.of(self._penalizes_logits))
            self._write(outputs.candidate_scores, Tensor.of(self._scores))

    def bind_states(
        self,
        states: Iterable[bundle_pb2.StateTensor],
        read: Iterable[Tensor],
        written: Iterable[Tensor],
    ) -> None:
        """Bind the memory that the step reads ``states`` from, and the memory that it writes."""
        for state, before, after in zip(states, read, written, strict=True):
            self._read(state.input, before)
            for output in state.outputs:
                self._write(output, after)

    def run(self, step_input: StepInput, listed: Listed | None = None) -> Candidates:
        """Run one step; the next step overwrites the returned arrays.

        ``listed`` is the shortlist, for graphs that take one.
        """
        self._bind_biases(step_input.token_biases, listed)
        if self._scores is not None:
            penalties, penalty = step_input.penalties, self._input_names.repetition_penalty
            self._read(penalty.indices, Tensor.of(penalties.positions))
            self._read(penalty.values, Tensor.of(penalties.values))
        self._session.run_with_iobinding(self._binding)
        return Candidates(self._token_ids, self._log_probabilities, self._scores)

    def _bind_biases(self, biases: Sequence[TokenBias], listed: Listed | None) -> None:
        """Bind the token biases and the shortlist, unless they are those of the last run.

        Equal ones are most often the same objects.
        """
        if listed is self._listed and all(map(is_, biases, self._biases)):
            return
        self.forget()  # so that the next run binds all again if this raises
        if listed is not None:
            self._read(self._input_names.shortlist, Tensor.of(listed.token_ids))
            self._read(self._input_names.shortlist_mask, Tensor.of(listed.may_use))
        bound: dict[int, TokenBias] = {}
        for bias, names in zip(biases, self._input_names.token_biases, strict=True):
            if id(bias) not in bound:
                bound[id(bias)] = bias if listed is None else listed.by_column(bias)
            positions, values = bound[id(bias)]
            self._read(names.indices, Tensor.of(positions))
            self._read(names.values, Tensor.of(values))
        # Bindings do not own memory: what they refer to must live as long as it is bound.
        self._listed, self._biases, self._bound = listed, list(biases), list(bound.values())

    def forget(self) -> None:
        """Release the biases and the shortlist of the last run; the next run binds them again."""
        self._listed, self._biases, self._bound = None, [None] * len(self._biases), []

    def _read(self, name: str, tensor: Tensor) -> None:
        tensor.bind_input(self._binding, name)

    def _write(self, name: str, tensor: Tensor) -> None:
        tensor.bind_output(self._binding, name)
