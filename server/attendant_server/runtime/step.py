"""One step of the decoder, bound to its inputs, its outputs and its caches."""

from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from attendant_server.engine.models import Candidates, StepInput
from attendant_server.runtime.sessions import Buffer, Tensor
from attendant_server.runtime.shortlists import Listed


class StepInputs:
    """The small inputs of the decoder step, at addresses that stay, for all rows of a memory."""

    def __init__(self, max_rows: int, max_slots: int, device: str | None = None) -> None:
        """Keep them on the host, or write them to ``device`` with one copy a step."""
        num_words = max_rows + max_slots + (max_rows + 1) // 2
        self._words = np.zeros(num_words, dtype=np.int64)
        self.tokens = self._words[:max_rows]
        self.source_lengths = self._words[max_rows : max_rows + max_slots]
        self.lengths = self._words[max_rows + max_slots :].view(np.int32)
        # The graphs want these on the host.
        self.total_length = np.zeros(1, dtype=np.int32)
        self.total_source_length = np.zeros(1, dtype=np.int32)
        self._buffer = Buffer(num_words, device) if device is not None else None

    def write(self, num_slots: int, step_input: StepInput) -> None:
        """Take over what one step is given, but for its token biases."""
        num_rows = len(step_input.tokens)
        self.tokens[:num_rows] = step_input.tokens
        self.lengths[:num_rows] = step_input.lengths
        self.total_length[0] = step_input.lengths.max() + 1
        # Were it 1 beside a longer source, ONNX Runtime would take all sources for empty ones and
        # write to their first position.
        self.total_source_length[0] = self.source_lengths[:num_slots].max()
        if self._buffer is not None:
            self._buffer.write(self._words)

    def tensor(self, part: NDArray[np.generic]) -> Tensor:
        """Where the graph reads ``part``, the beginning of one of the inputs."""
        if self._buffer is None:
            return Tensor.of(part)
        offset_bytes = part.ctypes.data - self._words.ctypes.data
        return self._buffer.tensor(part.dtype, part.shape, offset_bytes)


def check_input_devices(decoder_step: onnxruntime.InferenceSession, device: str) -> None:
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
class StepSignature:
    """What one graph of steps wants and gives, as its inputs and outputs tell."""

    num_tokens: int
    """Tokens that it decodes for each row in one run."""
    takes_num_candidates: bool
    takes_sources_as_pasts: bool
    """It binds the memory of the sources for writing, too, and reads no further than each."""
    takes_shortlist: bool
    """It scores the tokens that its rows may use and no others."""

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession) -> "StepSignature":
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
    written in place, and only shortlists and token biases, which are rare, are bound again.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: StepInputs,
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
        self._adjusted = dict.fromkeys(signature.suffixes, True)
        self._read("tokens", inputs.tensor(inputs.tokens[:num_rows]))
        self._read("lengths", inputs.tensor(inputs.lengths[:num_rows]))
        self._read("source_lengths", inputs.tensor(inputs.source_lengths[:num_slots]))
        self._read("total_length", Tensor.of(inputs.total_length))
        if signature.takes_sources_as_pasts:
            self._read("total_source_length", Tensor.of(inputs.total_source_length))
        if signature.takes_num_candidates:
            self._read("num_candidates", Tensor.of(self._num_candidates))
        self._write("candidate_ids", Tensor.of(self._token_ids))
        self._write("candidate_log_probabilities", Tensor.of(self._log_probabilities))

    def bind_caches(self, name: str, past: Tensor, cross: Tensor) -> None:
        """Bind the caches ``name``; what the step appends to ``past`` is written in place."""
        self._read(f"past_{name}", past)
        self._read(f"cross_{name}", cross)
        for suffix in self._signature.suffixes:
            self._write(f"present_{name}{suffix}", past)
            if self._signature.takes_sources_as_pasts:
                self._write(f"present_cross_{name}{suffix}", cross)

    def run(self, step_input: StepInput, listed: Listed | None = None) -> Candidates:
        """One step, with a graph that takes it among ``listed``; overwritten by the next."""
        # Bindings keep nothing alive: `biases` must live until the run has ended.
        biases = step_input.token_biases
        if listed is not None:
            self._read("shortlist", Tensor.of(listed.token_ids))
            self._read("may_use", Tensor.of(listed.may_use))
            biases = [listed.by_column(each) for each in biases]
        for suffix, (positions, values) in zip(self._signature.suffixes, biases, strict=True):
            has_any = len(values) > 0
            if has_any or self._adjusted[suffix]:
                self._read(f"adjusted_positions{suffix}", Tensor.of(positions))
                self._read(f"adjustments{suffix}", Tensor.of(values))
                self._adjusted[suffix] = has_any
        self._session.run_with_iobinding(self._binding)
        return Candidates(self._token_ids, self._log_probabilities)

    def _read(self, name: str, tensor: Tensor) -> None:
        tensor.bind_input(self._binding, name)

    def _write(self, name: str, tensor: Tensor) -> None:
        tensor.bind_output(self._binding, name)
