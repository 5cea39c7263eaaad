"""Attention as graph nodes: within whole texts, to the encoder's output, and to cached positions.

The counterpart of `models.attention`. `stack` adds the linear layers before and after it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from attendant.v1.architecture_pb2 import Architecture, Attention, Stack

from attendant_export.graphs.builder import MICROSOFT
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.rotations import rotation_names
from attendant_export.graphs.text_positions import TextPositions
from attendant_export.models.attention import num_key_value_heads, projection_widths
from attendant_export.models.relative_positions import buckets
from attendant_export.models.unsupported import unsupported

OnKeysValues = Callable[[str, str], None]
"""Receives keys and values (batch, length, width) as they are attended to."""
HEAD_DIM_MULTIPLE = 8
"""The kernel of `attend_past` supports only widths of a head that are multiples of this."""
ROTATED_MULTIPLE = 16
"""The same for heads with rotary positions."""


def check_decoder_heads(architecture: Architecture) -> None:
    """Raise ValueError if decoder steps do not support the width of a head."""
    for group in architecture.decoder.groups:
        for name in ("self_attention", "cross_attention"):
            if group.HasField(name):
                _check_cached_head(getattr(group, name))


def _check_cached_head(part: Attention) -> None:
    is_rotated = part.HasField("rotary_positions")
    multiple = ROTATED_MULTIPLE if is_rotated else HEAD_DIM_MULTIPLE
    if part.head_dim % multiple:
        where = "a decoder with rotary positions" if is_rotated else "a decoder"
        problem = f"is not supported in {where}, only multiples of {multiple}"
        raise unsupported(part, "head_dim", problem)


def norm_queries_and_keys(g: Layers, part: Attention, name: str, fused: str) -> str:
    """``fused`` (rows, fused) after the norms of queries and keys, if ``part`` has them.

    ``name`` is that of the attention in the model.
    """
    if not part.HasField("query_key_norm"):
        return fused
    widths = projection_widths(part)
    *projected, values = g.split_into(fused, widths, axis=1)
    normed = []
    for x, kind, width in zip(projected, ("query", "key"), widths, strict=False):
        heads = g.op("Reshape", x, g.integers(-1, width // part.head_dim, part.head_dim))
        heads = g.rms_norm(heads, f"{name}.{kind}_norm", part.query_key_norm.epsilon)
        normed.append(g.rows(heads, width))
    return g.op("Concat", *normed, values, axis=1)


def inner_width(part: Attention) -> int:
    """Total width of all heads."""
    return part.num_heads * part.head_dim


def attend_sequence(
    g: Layers,
    part: Attention,
    query_key_value: Sequence[str],
    batch: str,
    lengths: str = "",
    bias: str = "",
    positions: TextPositions | None = None,
    on_keys_values: OnKeysValues | None = None,
) -> str:
    """Self-attention of whole texts: queries, keys and values (rows, width) to (rows, inner).

    ``batch`` holds the shape (batch, length) of the texts. ``lengths`` (batch) masks the keys
    after the first ones, such as padding;
    causal attention needs no mask. ``bias`` (1, heads, length, length) is added to the scores.
    ``positions`` are needed for rotary positions, local attention, and causal attention of long
    texts in little memory. ``on_keys_values`` is called with the keys, after rotation, and values.
    """
    assert positions or not (part.window or part.HasField("rotary_positions"))
    query, keys, values = (g.by_text(x, batch) for x in query_key_value)  # (batch, length, width)
    key_heads = num_key_value_heads(part)
    if positions is not None:
        query = positions.rotate(part, query, part.num_heads)
        keys = positions.rotate(part, keys, key_heads)
    if on_keys_values is not None:
        on_keys_values(keys, values)
    if positions is not None:
        if part.window:
            local = positions.local(part, lengths)
            weighted = local.attend(part, query, keys, values, **_scale(part))
            return g.rows(weighted, inner_width(part))
        if part.is_causal and not bias and part.head_dim % HEAD_DIM_MULTIPLE == 0:
            ends = positions.ends(lengths)
            return g.rows(_attend_causally(g, part, query, keys, values, ends), inner_width(part))
    weighted = g.op(
        *("Attention", query, keys, values, bias, "", "", "" if part.is_causal else lengths),
        q_num_heads=part.num_heads,
        kv_num_heads=key_heads,
        is_causal=int(part.is_causal),
        **_scale(part),
    )  # (batch, length, inner)
    return g.rows(weighted, inner_width(part))


def sequence_weights(
    g: Layers,
    part: Attention,
    query_key_value: Sequence[str],
    batch: str,
    bias: str = "",
    positions: TextPositions | None = None,
) -> str:
    """The weights (batch, heads, length, length) of `attend_sequence`, in fp32.

    The parameters are the same; no token is padding.
    """
    query, keys = (g.by_text(x, batch) for x in query_key_value[:2])
    key_heads = num_key_value_heads(part)
    if positions is not None:
        query = positions.rotate(part, query, part.num_heads)
        keys = positions.rotate(part, keys, key_heads)
    # Each head of the keys serves a group of query heads.
    grouped = g.integers(0, 0, key_heads, part.num_heads // key_heads, part.head_dim)
    query = g.op("Transpose", g.op("Reshape", query, grouped), perm=(0, 2, 3, 1, 4))
    shared = g.integers(0, 0, key_heads, 1, part.head_dim)
    keys = g.op("Transpose", g.op("Reshape", keys, shared), perm=(0, 2, 3, 4, 1))
    scores = g.cast(g.op("MatMul", query, keys), np.float32)
    length = g.op("Gather", batch, g.integers(1))
    num_texts = g.op("Gather", batch, g.integers(0))
    shape = g.op("Concat", num_texts, g.integers(part.num_heads), length, length, axis=0)
    scale = g.constant(np.array(part.scale or part.head_dim**-0.5, np.float32))
    scores = g.op("Mul", g.op("Reshape", scores, shape), scale)
    if bias:
        scores = g.op("Add", scores, g.cast(bias, np.float32))
    return g.op("Softmax", _masked(g, part, scores, batch), axis=-1)


def _masked(g: Layers, part: Attention, scores: str, batch: str) -> str:
    """Scores (batch, heads, length, length) without those of keys that ``part`` does not see."""
    keys = g.positions(batch)
    distances = g.op("Sub", keys, g.op("Unsqueeze", keys, g.integers(1)))  # (query, key)
    lowest = g.constant(np.array(-np.inf, np.float32))
    if part.is_causal:
        scores = g.op("Where", g.op("LessOrEqual", distances, g.integer(0)), scores, lowest)
    if part.window:
        is_near = g.op("LessOrEqual", g.op("Abs", distances), g.integer(part.window))
        scores = g.op("Where", is_near, scores, lowest)
    return scores


def _attend_causally(
    g: Layers, part: Attention, query: str, keys: str, values: str, ends: tuple[str, str]
) -> str:
    """Weighted values (batch, length, inner) by a kernel that stores no scores of all pairs.

    ``ends`` are those of `TextPositions`.
    """
    # Without outputs for keys and values, the kernel stores the scores.
    weighted, *_ = g.ops(
        *("GroupQueryAttention", query, keys, values, "", "", *ends),
        num_results=3,
        domain=MICROSOFT,
        num_heads=part.num_heads,
        kv_num_heads=num_key_value_heads(part),
        **_scale(part),
    )
    return weighted


def relative_bias(g: Layers, part: Stack, name: str, batch: str) -> str:
    """The bias of a stack's scores (1, heads, length, length), or "" without relative positions.

    The counterpart of `models.relative_positions`. ``name`` is that of the table of biases.
    """
    if not part.HasField("relative_positions"):
        return ""
    positions = g.positions(batch)
    queries = g.op("Unsqueeze", positions, g.integers(1))
    values = _bias_values(g, part, name, queries, positions)  # (length, length, heads)
    return g.op("Unsqueeze", g.op("Transpose", values, perm=(2, 0, 1)), g.integers(0))


def relative_bias_of_past(
    g: Layers, part: Stack, name: str, lengths: str, total_length: str
) -> str:
    """The bias of one new position per row (rows, heads, 1, total length), or "".

    ``lengths`` and ``total_length`` are those of `attend_past`, ``name`` that of `relative_bias`.
    """
    if not part.HasField("relative_positions"):
        return ""
    total = g.cast(g.op("Squeeze", total_length), np.int64)
    keys = g.op("Range", g.integer(0), total, g.integer(1))
    queries = g.cast(g.op("Unsqueeze", lengths, g.integers(1)), np.int64)
    values = _bias_values(g, part, name, queries, keys)  # (rows, total length, heads)
    return g.op("Unsqueeze", g.op("Transpose", values, perm=(0, 2, 1)), g.integers(2))


def _bias_values(g: Layers, part: Stack, name: str, queries: str, keys: str) -> str:
    """The biases (n, keys, heads) between positions ``queries`` (n, 1) and ``keys`` (keys)."""
    farthest = part.relative_positions.max_distance
    distances = torch.arange(-farthest, farthest + 1)
    by_distance = g.constant(buckets(part.relative_positions, distances).numpy())
    bounds = g.integer(-farthest), g.integer(farthest)
    nearest = g.op("Clip", g.op("Sub", keys, queries), *bounds)
    found = g.op("Gather", by_distance, g.op("Add", nearest, g.integer(farthest)))
    return g.op("Gather", g.parameter(f"{name}.weight"), found)


def attend_memory(
    g: Layers, part: Attention, query: str, keys: str, values: str, lengths: str
) -> str:
    """Cross-attention: ``query`` (rows, inner) to weighted values (rows, inner).

    ``keys`` and ``values`` are (batch, heads, source, head_dim); ``lengths`` (batch) masks their
    padding. The rows of one text are adjacent, and all texts have the same number of rows.
    """
    query = _queries_by_text(g, part, query, lengths)
    weighted = g.op("Attention", query, keys, values, "", "", "", lengths, **_scale(part))
    return g.rows(g.op("Transpose", weighted, perm=(0, 2, 1, 3)), inner_width(part))


def memory_weights(g: Layers, part: Attention, query: str, keys: str, lengths: str) -> str:
    """The weights (batch, heads, rows per text, source) of `attend_memory`, in fp32.

    The operator Attention can give them, but ONNX Runtime infers a wrong shape for them.
    """
    query = _queries_by_text(g, part, query, lengths)
    scores = g.op("MatMul", query, g.op("Transpose", keys, perm=(0, 1, 3, 2)))
    scale = part.scale or part.head_dim**-0.5
    scores = g.op("Mul", g.cast(scores, np.float32), g.constant(np.array(scale, np.float32)))
    num_sources = g.op("Squeeze", g.op("Shape", keys, start=2, end=3))
    positions = g.op("Range", g.integer(0), num_sources, g.integer(1))
    is_text = g.op("Less", positions, g.op("Unsqueeze", lengths, g.integers(1, 2, 3)))
    masked = g.op("Where", is_text, scores, g.constant(np.array(-np.inf, np.float32)))
    return g.op("Softmax", masked, axis=-1)


def _queries_by_text(g: Layers, part: Attention, query: str, lengths: str) -> str:
    """Queries (rows, inner) as (batch, heads, rows per text, head_dim)."""
    batch = g.op("Shape", lengths)
    shape = g.op("Concat", batch, g.integers(-1, part.num_heads, part.head_dim), axis=0)
    return g.op("Transpose", g.op("Reshape", query, shape), perm=(0, 2, 1, 3))


def attend_past(
    g: Layers,
    part: Attention,
    query_key_value: tuple[str, str, str],
    past: tuple[str, str],
    lengths: str,
    total_length: str,
    bias: str = "",
) -> tuple[str, tuple[str, str]]:
    """Attention of one position per row to its past, which its key and value extend.

    ``past`` holds keys and values (rows, heads, max_length, head_dim), of which the first
    ``lengths`` (rows, int32) positions are valid. ``total_length`` (1, int32) is the largest length
    plus one. Queries, keys and values are (rows, width) each. If they are fused, the first string
    names (rows, all widths) and the others are "". Rotary positions are those after ``lengths``.
    ``bias`` (rows, heads, 1, total length) is added to the scores. Returns weighted values (rows,
    inner) and the extended keys and values, to be bound to the memory of ``past``. Raises
    ValueError for a head_dim that the kernel does not support.
    """
    _check_cached_head(part)
    one = g.integers(1)
    new = [x and g.op("Unsqueeze", x, one) for x in query_key_value]  # (rows, 1, width)
    options, tables = _scale(part), ("", "")
    if part.HasField("rotary_positions"):
        options["do_rotary"], tables = 1, rotation_names(part)
        for table in tables:
            g.parameter(table)
    weighted, *presents = g.ops(
        *("GroupQueryAttention", *new, *past, lengths, total_length),
        *((*tables, "", bias) if bias or tables[0] else ()),
        num_results=3,
        domain=MICROSOFT,
        num_heads=part.num_heads,
        kv_num_heads=num_key_value_heads(part),
        **options,
    )
    return g.rows(weighted, inner_width(part)), (presents[0], presents[1])


def _scale(part: Attention) -> dict[str, Any]:
    """The scale attribute, if the architecture overrides the operator's default."""
    return {"scale": part.scale} if part.scale else {}
