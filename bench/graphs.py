"""Graphs of a bundle without a server: opening them, and binding memory that they use in place."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the next line loads it
import numpy as np
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


def num_step_tokens(step: onnxruntime.InferenceSession) -> int:
    """Tokens that one run of a graph of steps decodes for each row."""
    (found,) = (node.shape for node in step.get_outputs() if node.name == "candidate_ids")
    return found[1] if isinstance(found[1], int) else 1


def presents(name: str, num_tokens: int) -> list[str]:
    """The outputs that a graph of steps writes the present ``name`` to, one for each token."""
    return [name + suffix for suffix in _suffixes(num_tokens)]


def no_adjustments(num_tokens: int) -> dict[str, NDArray[Any]]:
    """The inputs that leave every log-probability as it is."""
    nothing: dict[str, NDArray[Any]] = {}
    for suffix in _suffixes(num_tokens):
        nothing[f"adjusted_positions{suffix}"] = np.zeros((0, 2), np.int64)
        nothing[f"adjustments{suffix}"] = np.zeros(0, np.float32)
    return nothing


def _suffixes(num_tokens: int) -> list[str]:
    """What the names of the inputs and outputs for each of the tokens end with."""
    return ["", *(f"_{i}" for i in range(1, num_tokens))]
