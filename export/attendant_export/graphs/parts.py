"""Parts of the positions of texts, for which scores of a vocabulary are computed in turn.

The scores of a vocabulary are many times larger than hidden states. So a loop computes them for a
bounded number of positions at a time.
"""

from attendant_export.graphs.layers import Layers

MAX_SCORES = 2**23
"""Scores in memory at a time, 32 MB, unless one position of each text has more."""


def in_parts(g: Layers, num_texts: str, length: str, vocab_size: int) -> str:
    """All positions, and some more, in parts of equal size: (parts, size).

    ``num_texts`` and ``length`` hold one number each. The parts of all texts together have at most
    `MAX_SCORES` scores, or those of one position of each text.
    """
    one = g.integers(1)
    most = g.op("Div", g.integers(MAX_SCORES // vocab_size), num_texts)
    last = g.op("Sub", length, one)
    count = g.op("Add", g.op("Div", last, g.op("Max", most, one)), one)
    size = g.op("Add", g.op("Div", last, count), one)
    end = g.op("Squeeze", g.op("Mul", count, size))
    every = g.op("Range", g.integer(0), end, g.integer(1))
    return g.op("Reshape", every, g.op("Concat", count, size, axis=0))
