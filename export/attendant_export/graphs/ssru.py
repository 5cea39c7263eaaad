"""The SSRU as graph nodes, for one token per row and for whole texts. See `models.ssru`.

`stack` adds the linear layer before it. Gates and states are fp32 in every precision, since an
error in a state stays in it.
"""

import numpy as np

from attendant_export.graphs.layers import Layers


def next_state(g: Layers, gates: str, state: str) -> str:
    """The states (rows, d_model) after one token more.

    ``gates`` (rows, 2 d_model) holds the products for the forget gate and for the candidate.
    """
    forget, candidate = _forget_and_candidate(g, gates)
    return _kept(g, forget, candidate, state)


def states_of_sequence(g: Layers, gates: str, batch: str, width: int) -> str:
    """The states (rows, ``width``) after each token of whole texts.

    ``gates`` is that of `next_state`; ``batch`` holds the shape (batch, length) of the texts.
    """
    forget, candidate = (g.by_text(x, batch) for x in _forget_and_candidate(g, gates))
    num_texts = g.op("Gather", batch, g.integers(0))
    shape = g.op("Concat", num_texts, g.integers(width), axis=0)
    zeros = g.op("Expand", g.constant(np.array(0, np.float32)), shape)
    body = g.body("next_state")
    state, forget_gate, new = (
        body.input(f"scan_{x}", np.float32, "batch", width)
        for x in ("state", "forget", "candidate")
    )
    after = _kept(body, forget_gate, new, state)
    body.output("scan_next", after, np.float32, "batch", width)
    body.output("scan_output", body.op("Identity", after), np.float32, "batch", width)
    (states,) = g.scan(body, [zeros], [forget, candidate])  # (batch, length, width)
    return g.rows(states, width)


def output(g: Layers, state: str) -> str:
    """The output (rows, d_model) of the unit in the graph's float type."""
    return g.rounded(g.op("Relu", state))


def _kept(g: Layers, forget: str, candidate: str, state: str) -> str:
    difference = g.op("Sub", state, candidate)
    return g.op("Add", candidate, g.op("Mul", forget, difference))


def _forget_and_candidate(g: Layers, gates: str) -> list[str]:
    forget, candidate = g.split(g.fp32(gates), 2, axis=1)
    return [g.op("Sigmoid", forget), candidate]
