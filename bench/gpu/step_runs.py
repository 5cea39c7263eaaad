"""The decoder step of a bundle alone, over states that stay in the memory of a device."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from attendant.v1.bundle_pb2 import STATE_OWNER_ROW, StateTensor
from attendant.v1.embedding_pb2 import DATA_TYPE_FLOAT16

from bench.graphs import Array, graphs_of, read_manifest

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
NUM_CANDIDATES = 2
"""Candidates that a step returns, for each row of a source."""
STEP = "decoder_step"
"""Name of the step graph that servers run on a device, for beams of every width."""


class StepRuns:
    """A decoder step whose inputs and outputs are bound once, so that it can be run repeatedly.

    The states are zeros: the time of a step does not depend on their content.
    """

    def __init__(
        self,
        bundle: Path,
        precision: str,
        device: str,
        num_rows: int,
        *,
        width: int = 1,
        num_source_tokens: int = 24,
        num_past_tokens: int = 16,
        with_cuda_graphs: bool = False,
        profile: Path | None = None,
    ) -> None:
        """``width`` rows share a source. ``profile`` is the beginning of the name of a file.

        Raises an error of ONNX Runtime if the device cannot run the graph so.
        """
        manifest = read_manifest(bundle)
        steps = graphs_of(manifest, precision).steps
        (self._signature,) = (step for step in steps if step.name == STEP)
        self._device, self._width, self._num_rows = device, width, num_rows
        self._num_past, self._num_source = num_past_tokens, num_source_tokens
        path = bundle / self._signature.graph.path
        self.session = _opened(path, device, with_cuda_graphs, profile)
        self._binding = self.session.io_binding()
        self._arrays = self._small_inputs(manifest.decoding.start_token_id)
        for name, array in self._arrays.items():
            self._binding.bind_cpu_input(name, array)
        self._states = [self._bind_state(state) for state in self._signature.states]
        names, shape = self._signature.outputs, (num_rows, NUM_CANDIDATES * width)
        self._found = self._zeros(shape, np.int64)
        self._scores = self._zeros(shape, np.float32)
        self._binding.bind_ortvalue_output(names.candidate_ids, self._found)
        self._binding.bind_ortvalue_output(names.candidate_log_probabilities, self._scores)

    def run(self) -> None:
        """Run the step once; it has ended when this returns."""
        self.session.run_with_iobinding(self._binding)

    def candidates(self) -> Array:
        """The candidates (rows, candidates) of the latest run, on the host."""
        return np.asarray(self._found.numpy())

    def _small_inputs(self, start_token_id: int) -> dict[str, Array]:
        names, rows = self._signature.inputs, self._num_rows
        num_sentences = rows // self._width
        arrays: dict[str, Array] = {
            names.tokens: np.full(rows, start_token_id, np.int64),
            names.past_lengths: np.full(rows, self._num_past, np.int32),
            names.total_length: np.full(1, self._num_past + 1, np.int32),
            names.source_lengths: np.full(num_sentences, self._num_source, np.int64),
            names.num_candidates: np.full(1, NUM_CANDIDATES * self._width, np.int64),
        }
        for bias in names.token_biases:
            arrays[bias.indices] = np.zeros((0, 2), np.int64)
            arrays[bias.values] = np.zeros(0, np.float32)
        return arrays

    def _zeros(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """Memory on the device, whose address does not change: CUDA graphs need that."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), self._device, 0)

    def _bind_state(self, state: StateTensor) -> Any:
        """Bind zeros on the device as a state, which changes in place; returns their memory."""
        is_of_row = state.owner == STATE_OWNER_ROW
        num_entries = self._num_rows if is_of_row else self._num_rows // self._width
        num_positions = 2 * self._num_past if is_of_row else self._num_source
        dtype = np.float16 if state.data_type == DATA_TYPE_FLOAT16 else np.float32
        shape = (num_entries, *(size or num_positions for size in state.shape))
        value = self._zeros(shape, dtype)
        self._binding.bind_ortvalue_input(state.input, value)
        for output in state.outputs:
            self._binding.bind_ortvalue_output(output, value)
        return value


def _opened(path: Path, device: str, with_cuda_graphs: bool, profile: Path | None) -> Any:
    """A session on a device; raises RuntimeError if ONNX Runtime would use another one."""
    if device == "cuda":
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0)) if device == "cpu" else 1
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    provider_options = {"enable_cuda_graph": "1"} if with_cuda_graphs else {}
    session = onnxruntime.InferenceSession(
        path, options, providers=[(PROVIDERS[device], provider_options)]
    )
    if session.get_providers()[0] != PROVIDERS[device]:
        raise RuntimeError(f"ONNX Runtime cannot use {device} here")
    return session
