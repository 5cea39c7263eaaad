"""Compares attention graphs with the attention weights of the PyTorch model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from attendant_manifest.attention import CROSS, DECODER, ENCODER, attention_outputs
from torch import Tensor

from attendant_export.graphs.classification import FIRST_LENGTHS
from attendant_export.models.alignment_attention import AlignmentAttention
from attendant_export.models.attention import MultiHeadAttention
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.verify.bounds import FP32_BOUND, largest
from attendant_export.verify.graph_sessions import GraphSession, ParityError, check_finite

NUM_TEXTS = 8
"""Texts, or pairs, that are compared."""


@contextmanager
def recorded(
    parts: Iterable[MultiHeadAttention | AlignmentAttention | None],
) -> Iterator[list[Tensor]]:
    """The weights (batch, heads, queries, keys) of each of ``parts`` that runs in the block."""
    weights: list[Tensor] = []
    watched = [part for part in parts if part is not None]
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
    return {f"{ENCODER}_{layer}": each[0].float() for layer, each in enumerate(weights)}


@torch.inference_mode()
def pair_attention(
    model: EncoderDecoder, source: Sequence[int], target: Sequence[int]
) -> dict[str, Tensor]:
    """The weights of one source and its given target; like `text_attention`."""
    inputs = torch.tensor([list(source)]), torch.tensor([[model.tokens.bos_id, *target[:-1]]])
    with (
        recorded(layer.attention_to_itself for layer in model.encoder.layers) as encoder,
        recorded(layer.attention_to_itself for layer in model.decoder.layers) as decoder,
        recorded(layer.attention_to_source for layer in model.decoder.layers) as cross,
    ):
        model(*inputs)
    found = {ENCODER: encoder, DECODER: decoder, CROSS: cross}
    return {
        name: each[0].float()
        for kind, names in attention_outputs(model.architecture).items()
        for name, each in zip(filter(None, names), found[kind], strict=True)
    }


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
