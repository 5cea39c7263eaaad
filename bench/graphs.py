"""Opens and runs the graphs of a bundle without a server."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # must be set before the import below
import numpy as np
import onnxruntime
from attendant.v1.bundle_pb2 import Manifest, PrecisionGraphs
from attendant_manifest import parse_manifest
from numpy.typing import NDArray

Array = NDArray[Any]


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle."""
    return parse_manifest((bundle / "manifest.json").read_text(encoding="utf-8"))


def graphs_of(manifest: Manifest, precision: str) -> PrecisionGraphs:
    """The graphs of one precision."""
    (graphs,) = (p for p in manifest.precisions if p.name == precision)
    return graphs


def most_precise(manifest: Manifest) -> str:
    """The most precise of a bundle's precisions."""
    names = {graphs.name for graphs in manifest.precisions}
    return next(name for name in ("fp32", "fp16", "int8") if name in names)


def open_graph(path: Path, num_threads: int) -> Any:
    """Open a graph on the CPU. The result is an InferenceSession, which has no type stubs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_for(output: str, session: Any, feeds: dict[str, Array]) -> Array:
    """One output of a graph."""
    (found,) = session.run([output], feeds)
    return np.asarray(found)


def padded(rows: list[list[int]], pad_id: int) -> NDArray[np.int64]:
    """Right-padded token ids (rows, longest)."""
    ids = np.full((len(rows), max(map(len, rows))), pad_id, np.int64)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = values
    return ids
