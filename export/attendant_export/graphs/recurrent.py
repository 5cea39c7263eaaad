"""GRU and LSTM as graph nodes, for one token per row and for whole texts. See `models.recurrent`.

`stack` adds the products of their inputs before them. States and gates are fp32 in every precision,
since an error in a state stays in it; products with states have the precision of the graph.
"""

from collections.abc import Sequence

import numpy as np
from attendant.v1.architecture_pb2 import RECURRENT_CELL_LSTM, Recurrent

from attendant_export.graphs.layers import Layers
from attendant_export.models.recurrent import direction_suffixes, num_states


def next_states(
    g: Layers, part: Recurrent, name: str, gates: str, states: Sequence[str], suffix: str = ""
) -> list[str]:
    """The states (rows, width) after one token more.

    ``name`` is that of the part in the model and ``suffix`` that of the direction. ``gates`` (rows,
    gates x width) are the products of the input.
    """
    products = g.fp32(g.linear(g.rounded(states[0]), f"{name}.state{suffix}"))
    if part.cell == RECURRENT_CELL_LSTM:
        return _lstm(g, g.fp32(gates), products, states[1])
    return _gru(g, g.fp32(gates), products, states[0])


def _gru(g: Layers, gates: str, products: str, vector: str) -> list[str]:
    of_input, of_state = g.split(gates, 3, axis=1), g.split(products, 3, axis=1)
    both = zip(of_input[:2], of_state[:2], strict=True)
    reset, update = (g.op("Sigmoid", g.op("Add", *each)) for each in both)
    new = g.op("Tanh", g.op("Add", of_input[2], g.op("Mul", reset, of_state[2])))
    return [g.op("Add", new, g.op("Mul", update, g.op("Sub", vector, new)))]


def _lstm(g: Layers, gates: str, products: str, cell: str) -> list[str]:
    *opening, new, output = g.split(g.op("Add", gates, products), 4, axis=1)
    write, keep, show = (g.op("Sigmoid", gate) for gate in (*opening, output))
    written = g.op("Mul", write, g.op("Tanh", new))
    after = g.op("Add", g.op("Mul", keep, cell), written)
    return [g.op("Mul", show, g.op("Tanh", after)), after]


def states_of_sequences(
    g: Layers, part: Recurrent, name: str, gates: Sequence[str], states: Sequence[str] = ()
) -> list[str]:
    """The vectors (rows, width) after each token of whole texts, for each direction.

    ``gates`` (batch, length, gates x width) are those of `next_states`, and ``states`` those before
    the first token, by default 0. The tokens are in the order in which the direction reads them.
    """
    count, suffixes = num_states(part), direction_suffixes(part)
    width = int(g.parameters[f"{name}.state.weight"].shape[1])
    body = g.body(f"{name}.next")
    before = [
        [body.input(f"{name}.{i}{suffix}", np.float32, "batch", width) for i in range(count)]
        for suffix in suffixes
    ]
    read = [body.input(f"{name}.gates{suffix}", g.dtype, "batch", "gates") for suffix in suffixes]
    vectors = []
    for suffix, each, its_states in zip(suffixes, read, before, strict=True):
        after = next_states(body, part, name, each, its_states, suffix)
        for i, state in enumerate(after):
            body.output(f"{name}.{i}{suffix}.next", state, np.float32, "batch", width)
        vectors.append(body.op("Identity", after[0]))
    for suffix, vector in zip(suffixes, vectors, strict=True):
        body.output(f"{name}.vector{suffix}", vector, np.float32, "batch", width)
    firsts = list(states) or _zeros(g, gates[0], width) * (count * len(suffixes))
    return [g.rows(x, width) for x in g.scan(body, firsts, gates)]


def _zeros(g: Layers, gates: str, width: int) -> list[str]:
    """States of 0 for as many texts as ``gates`` (batch, ...) has."""
    shape = g.op("Concat", g.op("Shape", gates, start=0, end=1), g.integers(width), axis=0)
    return [g.op("Expand", g.constant(np.array(0, np.float32)), shape)]


def first_states(g: Layers, part: Recurrent, name: str, final: str) -> list[str]:
    """The states before the first token, from the encoder's final state (batch, d_model)."""
    states = g.fp32(g.op("Tanh", g.linear(final, f"{name}.start")))
    return g.split(states, num_states(part), axis=1)
