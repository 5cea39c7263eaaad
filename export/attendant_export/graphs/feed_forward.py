"""Feed-forward networks as graph nodes. The counterpart of `models.feed_forward`."""

from attendant.v1.architecture_pb2 import FeedForward

from attendant_export.graphs.layers import Layers


def feed_forward(g: Layers, part: FeedForward, name: str, x: str) -> str:
    """`models.feed_forward.FeedForward`: (rows, d_model) to (rows, d_model)."""
    inner = g.linear(x, f"{name}.0")
    if part.is_gated:
        gate, values = g.split(inner, 2, axis=1)
        inner = g.op("Mul", g.activation(gate, part.activation), values)
    else:
        inner = g.activation_between(inner, part.activation)
    return g.linear(inner, f"{name}.2")
