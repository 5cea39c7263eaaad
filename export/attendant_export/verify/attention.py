"""Compares attention graphs with the attention weights of the PyTorch model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from attendant_manifest.attention import CROSS, DECODER, ENCODER
from torch import Tensor

from attendant_export.graphs.classification import FIRST_LENGTHS
from attendant_export.models.attention import MultiHeadAttention
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.stack import Stack
from attendant_export.verify.bounds import FP32_BOUND, largest
from attendant_export.verify.graph_sessions import GraphSession, ParityError, check_finite

NUM_TEXTS = 8
"""Texts, or pairs, that are compared."""


@contextmanager
def recorded(parts: Iterable[MultiHeadAttention]) -> Iterator[list[Tensor]]:
    """The weights (batch, heads, queries, keys) of each of ``parts`` that runs in the block."""
    weights: list[Tensor] = []
    watched = list(parts)
    for part in watched:
        part.on_weights = weights.append
    try:
        yield weights
    finally:
        for part in watched:
            part.on_weights = None


@torch.inference_mode()
def text_attention(model: Encoder, token_ids: Sequence[int]) -> dict[str, Tensor]:
    """The weights (heads, queries, keys) of one text, by the names of the graph's outputs."""
    with recorded(layer.self_attention for layer in model.encoder.layers) as weights:
        model(torch.tensor([list(token_ids)]))
    return _named(ENCODER, range(len(weights)), weights)


@torch.inference_mode()
def pair_attention(
    model: EncoderDecoder, source: Sequence[int], target: Sequence[int]
) -> dict[str, Tensor]:
    """The weights of one source and its given target; like `text_attention`."""
    attending = _attending(model.decoder)
    inputs = torch.tensor([list(source)]), torch.tensor([[model.tokens.bos_id, *target[:-1]]])
    with (
        recorded(layer.self_attention for layer in model.encoder.layers) as encoder,
        recorded(model.decoder.layers[i].self_attention for i in attending) as decoder,
        recorded(layer.cross_attention for layer in model.decoder.layers) as cross,
    ):
        model(*inputs)
    return {
        **_named(ENCODER, range(len(encoder)), encoder),
        **_named(DECODER, attending, decoder),
        **_named(CROSS, range(len(cross)), cross),
    }


def _attending(decoder: Stack) -> list[int]:
    """The numbers of the layers with self-attention."""
    return [i for i, layer in enumerate(decoder.layers) if not layer.is_recurrent]


def _named(kind: str, layers: Iterable[int], weights: Iterable[Tensor]) -> dict[str, Tensor]:
    pairs = zip(layers, weights, strict=True)
    return {f"{kind}_{layer}": each[0].float() for layer, each in pairs}


def check_text_attention(
    precision: str, graph: GraphSession, model: Encoder, texts: Iterable[Sequence[int]]
) -> float:
    """Largest difference between weights of the graph and of the model.

    Raises ParityError if fp32 differs by more than rounding, or for NaN and infinity.
    """
    differences = []
    for ids in list(texts)[:NUM_TEXTS]:
        inputs = {"token_ids": np.array([ids])}
        if FIRST_LENGTHS in graph.input_names:
            inputs[FIRST_LENGTHS] = np.array([len(ids)])
        differences.append(_difference(graph, inputs, text_attention(model, ids)))
    return _checked(precision, largest(differences))


def check_pair_attention(
    precision: str,
    graph: GraphSession,
    model: EncoderDecoder,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
) -> float:
    """The same for sources and their given targets."""
    differences = []
    for source, target in list(zip(sources, targets, strict=True))[:NUM_TEXTS]:
        target_in = [model.tokens.bos_id, *target[:-1]]
        inputs = {"source": np.array([source]), "target_in": np.array([target_in])}
        expected = pair_attention(model, source, target)
        differences.append(_difference(graph, inputs, expected))
    return _checked(precision, largest(differences))


def _difference(
    graph: GraphSession, inputs: dict[str, np.ndarray], expected: dict[str, Tensor]
) -> float:
    found = graph.run(list(expected), inputs)
    for name, weights in zip(expected, found, strict=True):
        check_finite(f"attention, {name},", weights)
    pairs = zip(found, expected.values(), strict=True)
    return largest(float(np.abs(ours[0] - theirs.numpy()).max()) for ours, theirs in pairs)


def _checked(precision: str, difference: float) -> float:
    if precision == "fp32" and not difference <= FP32_BOUND:  # also true for NaN
        raise ParityError(
            f"fp32: attention weights differ from the model by {difference:.2g}, at most "
            f"{FP32_BOUND:.0e}"
        )
    return difference
