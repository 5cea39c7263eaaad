"""The SSRU as graph nodes, for one token per row and for whole texts. See `models.ssru`.

`stack` adds the linear layer before it. Gates and states are fp32 in every precision, since an
error in a state stays in it.
"""

import numpy as np

from attendant_export.graphs.builder import subgraph
from attendant_export.graphs.layers import Layers

NEXT_STATE = subgraph(
    "next_state",
    [
        ("Sub", ["scan_state", "scan_candidate"], "scan_difference"),
        ("Mul", ["scan_forget", "scan_difference"], "scan_kept"),
        ("Add", ["scan_candidate", "scan_kept"], "scan_next"),
        ("Identity", ["scan_next"], "scan_output"),
    ],
    inputs=["scan_state", "scan_forget", "scan_candidate"],
    outputs=["scan_next", "scan_output"],
)
"""`next_state` for one position of all texts. Its names must differ from those of the graph."""


def next_state(g: Layers, gates: str, state: str) -> str:
    """The states (rows, d_model) after one token more.

    ``gates`` (rows, 2 d_model) holds the products for the forget gate and for the candidate.
    """
    forget, candidate = _forget_and_candidate(g, gates)
    difference = g.op("Sub", state, candidate)
    return g.op("Add", candidate, g.op("Mul", forget, difference))


def states_of_sequence(g: Layers, gates: str, batch: str, width: int) -> str:
    """The states (rows, ``width``) after each token of whole texts.

    ``gates`` is that of `next_state`; ``batch`` holds the shape (batch, length) of the texts.
    """
    forget, candidate = (g.by_text(x, batch) for x in _forget_and_candidate(g, gates))
    num_texts = g.op("Gather", batch, g.integers(0))
    shape = g.op("Concat", num_texts, g.integers(width), axis=0)
    zeros = g.op("Expand", g.constant(np.array(0, np.float32)), shape)
    _, states = g.ops(
        *("Scan", zeros, forget, candidate),
        num_results=2,
        body=NEXT_STATE,
        num_scan_inputs=2,
        scan_input_axes=[1, 1],
        scan_output_axes=[1],
    )  # (batch, length, width)
    return g.rows(states, width)


def output(g: Layers, state: str) -> str:
    """The output (rows, d_model) of the unit in the graph's float type."""
    found = g.op("Relu", state)
    return found if g.dtype == np.float32 else g.cast(found, g.dtype)


def _forget_and_candidate(g: Layers, gates: str) -> list[str]:
    forget, candidate = g.split(g.fp32(gates), 2, axis=1)
    return [g.op("Sigmoid", forget), candidate]
