"""Builds graphs without weights that copy cache memory on a device, and writes them.

The server runs them but cannot write ONNX itself. They see memory as 64-bit words and do not depend
on a model. ``python -m attendant_export.graphs.cache_copies FOLDER`` writes them.
"""

import os
import sys
from pathlib import Path

import numpy as np

from attendant_export.graphs.builder import GraphBuilder, WeightFile


def build_zeros(g: GraphBuilder) -> None:
    """A matrix of zeros of the requested shape (2)."""
    shape = g.input("shape", np.int64, 2)
    g.output("memory", g.op("Expand", g.integer(0), shape), np.int64, "positions", "words")


def build_copy_positions(g: GraphBuilder) -> None:
    """Copy runs of positions from ``origin`` to ``memory``, which is both input and output.

    A strip is the memory of one tensor and head of a cache. A run begins at each sum of a value of
    ``strips`` and a value of ``starts``. Of its ``num_positions`` positions the first ``num_kept``
    are copied, and the others are zeroed. All reads come before all writes, so ``origin`` and
    ``memory`` may be the same.
    """
    origin = g.input("origin", np.int64, "origin_positions", "words")
    memory = g.input("memory", np.int64, "positions", "words")
    num_positions, num_kept = (
        g.input("num_positions", np.int64, 1),
        g.input("num_kept", np.int64, 1),
    )
    length = g.op("Squeeze", num_positions, g.integers(0))
    offsets = g.op("Range", g.integer(0), length, g.integer(1))
    within = g.op("Min", offsets, g.op("Sub", num_kept, g.integers(1)))
    sources = _runs(g, "origin_strips", "origin_starts", within)
    targets = _runs(g, "strips", "starts", offsets)
    found = g.op("Gather", origin, sources)  # (strips, starts, num_positions, words)
    is_kept = g.op("Unsqueeze", g.op("Less", offsets, num_kept), g.integers(1))
    kept = g.op("Where", is_kept, found, g.integer(0))
    indices = g.op("Unsqueeze", targets, g.integers(-1))
    g.output("copied", g.op("ScatterND", memory, indices, kept), np.int64, "positions", "words")


def _runs(g: GraphBuilder, strips: str, starts: str, offsets: str) -> str:
    """All positions of all runs: (strips, starts, num_positions)."""
    rows = g.op("Unsqueeze", g.input(strips, np.int64, "strips"), g.integers(1, 2))
    columns = g.op("Unsqueeze", g.input(starts, np.int64, "starts"), g.integers(1))
    return g.op("Add", g.op("Add", rows, columns), offsets)


def write_cache_graphs(folder: Path) -> None:
    """Write ``zeros.onnx`` and ``copy_positions.onnx`` into ``folder``."""
    builders = {"zeros": build_zeros, "copy_positions": build_copy_positions}
    with WeightFile(Path(os.devnull)) as no_weights:
        for name, build in builders.items():
            graph = GraphBuilder(name, no_weights)
            build(graph)
            graph.write(folder / f"{name}.onnx")


if __name__ == "__main__":
    write_cache_graphs(Path(sys.argv[1]))
