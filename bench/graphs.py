"""Graphs of a bundle without a server: opening them, and binding memory that they use in place."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the next line loads it
import onnxruntime
from numpy.typing import NDArray


def open_graph(path: Path, num_threads: int) -> onnxruntime.InferenceSession:
    """A graph on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def memory_of(array: NDArray[Any]) -> tuple[Any, ...]:
    """What a binding wants to know of an array that it uses in place, and does not keep alive."""
    return ("cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
