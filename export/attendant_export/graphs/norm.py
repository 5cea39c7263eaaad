"""Norms of stacks as graph nodes. The counterpart of `models.norm`."""

from attendant.v1.architecture_pb2 import NORM_KIND_RMS, NORM_POSITION_NONE, Stack

from attendant_export.graphs.layers import Layers


def norm(g: Layers, part: Stack, name: str, x: str) -> str:
    """``x`` (rows, width) after a norm of the stack's kind."""
    run = g.rms_norm if part.norm_kind == NORM_KIND_RMS else g.layer_norm
    return run(x, name, part.norm_epsilon)


def norm_of_sublayer(g: Layers, part: Stack, name: str, x: str) -> str:
    """``x`` (rows, width) after a norm inside a sublayer, if the stack has norms."""
    return x if part.norm_position == NORM_POSITION_NONE else norm(g, part, name, x)
