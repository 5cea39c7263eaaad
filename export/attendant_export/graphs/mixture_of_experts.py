"""A mixture of experts as graph nodes. The counterpart of `models.mixture_of_experts`.

Each expert computes the rows that selected it, however many they are, so no row depends on others.
The choice is made in fp32 in every precision.
"""

import numpy as np
from attendant.v1.architecture_pb2 import MixtureOfExperts

from attendant_export.graphs.feed_forward import feed_forward
from attendant_export.graphs.layers import Layers


def mix_experts(g: Layers, part: MixtureOfExperts, name: str, x: str) -> str:
    """(rows, d_model) to (rows, d_model)."""
    factors = _factors(g, part, name, x)  # (experts, rows)
    # ONNX Runtime adds to rows in fp32 only.
    output = g.op("Expand", g.constant(np.array(0, np.float32)), g.op("Shape", x))
    for number in range(part.num_experts):
        own = g.op("Gather", factors, g.integer(number))  # (rows)
        rows = g.flat(g.op("NonZero", own))  # those that selected the expert
        g.change_rows(may_be_none=True)
        found = feed_forward(g, part.expert, f"{name}.experts.{number}", g.op("Gather", x, rows))
        factor = g.op("Unsqueeze", g.op("Gather", own, rows), g.integers(1))
        products = g.op("Mul", g.fp32(found), factor)
        places = g.op("Unsqueeze", rows, g.integers(1))
        output = g.op("ScatterND", output, places, products, reduction="add")
    g.change_rows()
    return g.rounded(output)


def _factors(g: Layers, part: MixtureOfExperts, name: str, x: str) -> str:
    """The factor of each expert's output: (experts, rows), fp32, 0 for those not selected."""
    values = g.op("Gemm", g.fp32(x), g.fp32_parameter(f"{name}.gate.weight"), transB=1)
    best, chosen = g.ops("TopK", values, g.integers(part.num_selected), num_results=2)
    best = g.op("Unsqueeze", g.op("Softmax", best, axis=-1), g.integers(2))
    numbers = g.constant(np.arange(part.num_experts))
    is_chosen = g.op("Equal", g.op("Unsqueeze", chosen, g.integers(2)), numbers)
    zero = g.constant(np.array(0, np.float32))
    factors = g.op("Where", is_chosen, best, zero)  # (rows, selected, experts)
    return g.op("Transpose", g.op("ReduceSum", factors, g.integers(1), keepdims=0), perm=(1, 0))
