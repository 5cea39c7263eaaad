"""Attention as graph nodes: of whole texts, to the encoder's output, and to a past.

The twin of `models.attention`. Linear layers before and after it are those of `stack`.
"""

from typing import Any

from attendant.v1.architecture_pb2 import Attention

from attendant_export.graphs.builder import MICROSOFT
from attendant_export.graphs.layers import Layers
from attendant_export.models.unsupported import unsupported

HEAD_DIM_MULTIPLE = 8
"""The kernel of `attend_past` takes no other widths of heads."""


def inner_width(part: Attention) -> int:
    """Width of all heads together."""
    return part.num_heads * part.head_dim


def attend_sequence(
    g: Layers, part: Attention, query_key_value: str, batch: str, lengths: str = ""
) -> str:
    """Self-attention of whole texts: (rows, 3 inner) to (rows, inner).

    ``batch`` is the shape (batch, length) of the rows. With ``lengths`` (batch), positions behind
    a text's length are not attended to; causal attention never does.
    """
    fused = g.by_text(query_key_value, batch)  # (batch, length, 3 inner)
    query, keys, values = g.split(fused, 3, axis=2)
    weighted = g.op(
        *("Attention", query, keys, values, "", "", "", "" if part.is_causal else lengths),
        q_num_heads=part.num_heads,
        kv_num_heads=part.num_heads,
        is_causal=int(part.is_causal),
        **_scale(part),
    )  # (batch, length, inner)
    return g.rows(weighted, inner_width(part))


def attend_memory(
    g: Layers, part: Attention, query: str, keys: str, values: str, lengths: str
) -> str:
    """Cross-attention: ``query`` (rows, inner) to weighted values (rows, inner).

    ``keys`` and ``values`` are (batch, heads, source, head_dim), of which ``lengths`` (batch)
    source positions count. The rows of one text are adjacent and equally many for each text.
    """
    batch = g.op("Shape", lengths)
    shape = g.op("Concat", batch, g.integers(-1, part.num_heads, part.head_dim), axis=0)
    split = g.op("Reshape", query, shape)  # (batch, rows per text, heads, head_dim)
    query = g.op("Transpose", split, perm=(0, 2, 1, 3))
    inputs = (query, keys, values, "", "", "", lengths)
    weighted = g.op("Attention", *inputs, **_scale(part))
    return g.rows(g.op("Transpose", weighted, perm=(0, 2, 1, 3)), inner_width(part))


def attend_past(
    g: Layers,
    part: Attention,
    query_key_value: tuple[str, str, str],
    past: tuple[str, str],
    lengths: str,
    total_length: str,
) -> tuple[str, tuple[str, str]]:
    """Attention of one position a row to its past, to which its key and value are appended.

    Of ``past``, keys and values (rows, heads, max_length, head_dim), ``lengths`` (rows, int32)
    positions count; ``total_length`` (1, int32) is one more than the longest of them. Queries,
    keys and values are (rows, inner), or the queries hold all three and the others are "". Gives
    weighted values (rows, inner), and what is to be bound to the memory of ``past``.
    """
    if part.head_dim % HEAD_DIM_MULTIPLE:
        problem = f"is not supported in a decoder, only multiples of {HEAD_DIM_MULTIPLE}"
        raise unsupported(part, "head_dim", problem)
    one = g.integers(1)
    new = [x and g.op("Unsqueeze", x, one) for x in query_key_value]  # (rows, 1, inner)
    weighted, *presents = g.ops(
        *("GroupQueryAttention", *new, *past, lengths, total_length),
        num_results=3,
        domain=MICROSOFT,
        num_heads=part.num_heads,
        kv_num_heads=part.num_heads,
        **_scale(part),
    )
    return g.rows(weighted, inner_width(part)), (presents[0], presents[1])


def _scale(part: Attention) -> dict[str, Any]:
    """The attribute for a factor that is not the operators' own."""
    return {"scale": part.scale} if part.scale else {}
