"""What the encoder gives the decoder as graph nodes: keys, values and first states of rows."""

from collections.abc import Callable, Iterator

from attendant.v1.architecture_pb2 import ALIGNMENT_FUNCTION_ADDITIVE, Architecture

from attendant_export.graphs import recurrent
from attendant_export.graphs.attention import inner_width
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.parameters import KEYS_VALUES
from attendant_export.graphs.step_interface import memory_name, source_names
from attendant_export.graphs.unfolding import UnfoldedTexts
from attendant_export.models.recurrent import ends_bidirectional, starts_from_source
from attendant_export.models.stack import each_layer


def source_values(
    g: Layers,
    architecture: Architecture,
    x: str,
    batch: str,
    pad: Callable[[str], str] = lambda rows: rows,
    texts: UnfoldedTexts | None = None,
) -> dict[str, str]:
    """The values (batch, heads, source, width) of `source_shapes`, by name.

    ``x`` (rows, d_model) is the encoder's output and ``batch`` holds the shape (batch, source) of
    the texts. ``pad`` adds their padding to rows that lack it. ``texts`` are needed if the encoder
    has outputs after the tokens of the source, and ``batch`` is then that of these texts.
    """
    return dict(
        [
            *_keys_values_of_heads(g, architecture, x, batch, pad),
            *_aligned_memory(g, architecture, x, batch, pad),
            *_unfolded_memory(g, architecture, lambda: g.by_text(pad(x), batch), texts),
        ]
    )


def _keys_values_of_heads(
    g: Layers, architecture: Architecture, x: str, batch: str, pad: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    """The keys and then the values of each layer with multi-head attention in turn."""
    layers = [
        (layer, group.cross_attention)
        for layer, group in enumerate(each_layer(architecture.decoder))
        if group.HasField("cross_attention")
    ]
    if not layers:
        return
    keys_values = pad(g.linear(x, KEYS_VALUES))  # (rows, all widths)
    widths = [inner_width(part) for _, part in layers for _ in range(2)]
    pieces = iter(g.split_into(keys_values, widths, axis=1))
    shapes = {
        shape: g.op("Concat", batch, g.integers(*shape), axis=0)
        for shape in dict.fromkeys((part.num_heads, part.head_dim) for _, part in layers)
    }
    for layer, part in layers:
        for name in source_names(layer):
            heads = g.op("Reshape", next(pieces), shapes[part.num_heads, part.head_dim])
            yield name, g.op("Transpose", heads, perm=(0, 2, 1, 3))


def _aligned_memory(
    g: Layers, architecture: Architecture, x: str, batch: str, pad: Callable[[str], str]
) -> Iterator[tuple[str, str]]:
    """What each layer with an alignment function keeps: the encoder's output, and maybe keys."""

    def as_head(rows: str) -> str:
        return g.op("Unsqueeze", g.by_text(pad(rows), batch), g.integers(1))

    for layer, group in enumerate(each_layer(architecture.decoder)):
        if not group.HasField("alignment_attention"):
            continue
        if group.alignment_attention.function != ALIGNMENT_FUNCTION_ADDITIVE:
            yield memory_name(layer), as_head(x)
            continue
        keys, values = source_names(layer)
        yield keys, as_head(g.linear(x, f"decoder.{layer}.alignment_attention.key"))
        yield values, as_head(x)


def _unfolded_memory(
    g: Layers,
    architecture: Architecture,
    by_text: Callable[[], str],
    texts: UnfoldedTexts | None,
) -> Iterator[tuple[str, str]]:
    """What each layer with an unfolding keeps: the encoder's output at all positions.

    ``by_text`` adds the nodes for (batch, positions, d_model).
    """
    for layer, group in enumerate(each_layer(architecture.decoder)):
        if group.HasField("unfolding"):
            x = by_text()
            yield (
                memory_name(layer),
                g.op("Unsqueeze", x, g.integers(1)) if texts is None else texts.outputs(x),
            )


def first_vectors(
    g: Layers, architecture: Architecture, ends: Callable[[], tuple[str, str]]
) -> dict[int, list[str]]:
    """The vectors (batch, d_model) with which rows begin, by decoder layer; see `Recurrent`.

    ``ends`` adds the nodes for the encoder's output at the first and at the last token of each
    text, each (batch, d_model).
    """
    if not starts_from_source(architecture):
        return {}
    first, final = ends()
    if ends_bidirectional(architecture.encoder):
        halves = g.split(final, 2, axis=1)[0], g.split(first, 2, axis=1)[1]
        final = g.op("Concat", *halves, axis=1)
    g.change_rows()
    return {
        layer: recurrent.first_states(g, group.recurrent, f"decoder.{layer}.recurrent", final)
        for layer, group in enumerate(each_layer(architecture.decoder))
        if group.HasField("recurrent")
    }
