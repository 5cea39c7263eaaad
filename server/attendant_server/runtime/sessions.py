"""Opens graphs on a device, and allocates the memory that they are bound to.

Knows devices and arrays, and no model.
"""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import DTypeLike, NDArray

from attendant_server.system.subnormals import kept_float_environment

CUDA_LIBRARY = "libcudart.so.13"
"""Library of the CUDA version that the pinned onnxruntime-gpu is built for; already loaded."""
RUNTIME_VERSION: str = onnxruntime.__version__
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

MEMORY_ERRORS = (
    MemoryError,
    OSError,
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
)
"""Raised if the host or a device has no memory left."""


@cache
def use_gpu(max_bytes: int) -> None:
    """Make one arena of at most ``max_bytes`` (0: no limit), which all graphs on the GPU share.

    Call it before any session on ``cuda``. Raises RuntimeError if no GPU can be used.
    """
    if PROVIDERS["cuda"] not in onnxruntime.get_available_providers():
        raise RuntimeError("this build of ONNX Runtime has no CUDA: install the extra [gpu]")
    onnxruntime.preload_dlls()
    memory_info = onnxruntime.OrtMemoryInfo(
        "Cuda", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # 1 is kSameAsRequested: growing to powers of two would take up to twice the needed memory.
    arena = onnxruntime.OrtArenaCfg({"max_mem": max_bytes, "arena_extend_strategy": 1})
    try:
        onnxruntime.create_and_register_allocator_v2(PROVIDERS["cuda"], memory_info, {}, arena)
    except Exception as error:  # ONNX Runtime raises classes of its own
        raise RuntimeError(f"ONNX Runtime cannot use a GPU here: {error}") from error


def gpu_memory() -> tuple[int, int]:
    """Used bytes, of all processes, and total bytes of the GPU. Call `use_gpu` first.

    ONNX Runtime does not expose its arena to Python, so this asks CUDA. Raises RuntimeError.
    """
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    code = ctypes.CDLL(CUDA_LIBRARY).cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    if code:
        raise RuntimeError(f"cudaMemGetInfo: error {code}")
    return total.value - free.value, total.value


def _new_run_options() -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    # No graph is captured. Without this entry, ONNX Runtime's Python code raises and catches an
    # error in each run, which takes 40 microseconds.
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options


class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session whose runs any thread can stop."""

    def __init__(self, path: Path, options: onnxruntime.SessionOptions, providers: Any) -> None:
        super().__init__(path, options, providers=providers)
        self._run_options = _new_run_options()

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
        """Run the graph; returns the outputs."""
        return super().run(output_names, input_feed, run_options or self._run_options)

    def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
        """Run the graph with bound inputs and outputs."""
        super().run_with_iobinding(iobinding, run_options or self._run_options)

    def stop_runs(self) -> None:
        """Let the present runs raise after the operator that each of them executes."""
        stopped, self._run_options = self._run_options, _new_run_options()
        stopped.terminate = True


def open_session(path: Path, num_threads: int, device: str, spins: bool = False) -> Session:
    """Load a graph for ``device``, ``cpu`` or ``cuda``; raises RuntimeError if there is no GPU.

    With ``spins``, its threads wait for each other in busy loops during a run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    # Busy threads of idle sessions would take cores from the running session.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # For the threads of the session, which compute as the workers do, see `system.subnormals`.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    provider = PROVIDERS[device]
    provider_options = {}
    if device == "cuda":
        options.add_session_config_entry("session.use_env_allocators", "1")  # see use_gpu
        # fp32 parts of an fp16 graph need their precision: TF32 would round them to 10 bits.
        provider_options = {"use_tf32": "0"}
    with kept_float_environment():  # The option also concerns the thread of the first session.
        session = Session(path, options, [(provider, provider_options)])
    if session.get_providers()[0] != provider:
        # ONNX Runtime would fall back to the CPU with only a warning.
        raise RuntimeError("ONNX Runtime cannot use a GPU here")
    return session


class ShrinkingSession:
    """A session on the host whose runs release the working memory of earlier runs.

    Otherwise ONNX Runtime keeps the memory of a session's largest run.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session, self._options = session, onnxruntime.RunOptions()
        self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[np.generic]]) -> Any:
        """Run the graph; returns the outputs ``names``."""
        return self._session.run(names, feeds, self._options)

    def io_binding(self) -> onnxruntime.IOBinding:
        """A new binding for inputs and outputs."""
        return self._session.io_binding()

    def run_with_iobinding(self, binding: onnxruntime.IOBinding) -> None:
        """Run the graph with bound inputs and outputs."""
        self._session.run_with_iobinding(binding, self._options)


@dataclass(frozen=True, slots=True)
class Tensor:
    """The location of an array in memory, so that a graph can read or write it in place.

    Does not own the memory: the caller must keep it alive.
    """

    device: str
    pointer: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: NDArray[np.generic]) -> "Tensor":
        """The location of a contiguous array in host memory."""
        assert array.flags.c_contiguous
        return cls("cpu", array.ctypes.data, array.dtype, array.shape)

    def bind_input(self, binding: onnxruntime.IOBinding, name: str) -> None:
        """Bind the graph's input ``name`` to this tensor.

        If the graph reads the input on another device, it is copied now, and not again at a run.
        """
        binding.bind_input(name, self.device, 0, self.dtype.type, self.shape, self.pointer)

    def bind_output(self, binding: onnxruntime.IOBinding, name: str) -> None:
        """Bind the graph's output ``name`` to this tensor."""
        binding.bind_output(name, self.device, 0, self.dtype.type, self.shape, self.pointer)


class Buffer:
    """Memory of a device, in words of 64 bits. Its content is undefined until it is written."""

    def __init__(self, num_words: int, device: str) -> None:
        """Allocate memory from the device's arena; raises an error of ONNX Runtime if it is full.

        The sessions of a device share one arena, so any session's allocator will do.
        """
        self.device = device
        self._value = graph_session("zeros", device).create_ortvalue_from_shape_and_type(
            [num_words], np.int64, device
        )
        self._pointer = self._value.data_ptr()

    def tensor(self, dtype: DTypeLike, shape: tuple[int, ...], offset_bytes: int = 0) -> Tensor:
        """The array of this type and shape that begins at ``offset_bytes``."""
        return Tensor(self.device, self._pointer + offset_bytes, np.dtype(dtype), shape)

    def write(self, words: NDArray[np.int64]) -> None:
        """Replace the whole content."""
        self._value.update_inplace(words)


@cache
def graph_session(name: str, device: str) -> onnxruntime.InferenceSession:
    """The session of a graph in ``graphs/``, opened once per device."""
    return open_session(Path(__file__).parent / "graphs" / f"{name}.onnx", 1, device)
