"""The fixed scales of the inputs of a Marian model's linear layers, for int8 graphs.

Marian finds the range of each layer's inputs on sample texts and stores the factor with which an
input becomes an integer, 127 / range, as a tensor of its own beside each matrix.
"""

from collections.abc import Iterator

import numpy as np
from attendant.v1.architecture_pb2 import Architecture, LayerGroup

from attendant_export.graphs.embeddings import target_embeddings
from attendant_export.graphs.parameters import KEYS_VALUES
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.marian_file import MarianFile
from attendant_export.importers.marian_network import (
    QUANTIZATION_SUFFIX,
    SHARED_TABLE,
    TARGET_TABLE,
    projection,
)
from attendant_export.models.stack import each_layer

LISTED_OUTPUT = "none"
"""Marian's name for the rows of the output layer that a shortlist chooses."""


def read_input_scales(file: MarianFile, architecture: Architecture) -> dict[str, float]:
    """The scales of the linear layers of graphs whose matrices all have a factor, by name.

    The largest counts if the matrices of a layer differ. Raises CheckpointError for a factor that
    is not a positive number.
    """
    scales: dict[str, float] = {}
    output, matrix = _output_layer(file, architecture)
    if matrix + QUANTIZATION_SUFFIX not in file.shapes:
        matrix = LISTED_OUTPUT
    for name, matrices in (*_linear_layers(architecture), (output, [matrix])):
        factors = [matrix + QUANTIZATION_SUFFIX for matrix in matrices]
        if all(factor in file.shapes for factor in factors):
            scales[name] = max(_scale(file, factor) for factor in factors)
    return scales


def _scale(file: MarianFile, name: str) -> float:
    values = file.array(name).ravel()
    if values.size != 1 or not (np.isfinite(values[0]) and values[0] > 0):
        raise CheckpointError(f"{file.path}: {name} is {values.tolist()}, want a positive number")
    return float(1 / values[0])


def _linear_layers(architecture: Architecture) -> Iterator[tuple[str, list[str]]]:
    """The linear layers of graphs but the last, each with Marian's matrices that it is made of."""
    for i, group in enumerate(each_layer(architecture.encoder)):
        yield from _layer(f"encoder.{i}", f"encoder_l{i + 1}", group)
    memory: list[str] = []
    for i, group in enumerate(each_layer(architecture.decoder)):
        ours, theirs = f"decoder.{i}", f"decoder_l{i + 1}"
        yield from _layer(ours, theirs, group)
        yield f"{ours}.cross_attention.query", [f"{theirs}_context_Wq"]
        yield f"{ours}.cross_attention.output", [f"{theirs}_context_Wo"]
        memory += [f"{theirs}_context_Wk", f"{theirs}_context_Wv"]
    yield KEYS_VALUES, memory


def _output_layer(file: MarianFile, architecture: Architecture) -> tuple[str, str]:
    """The layer that scores the vocabulary, and its matrix."""
    if not architecture.head.is_tied:
        return "head.projection", projection(file.shapes)
    table = SHARED_TABLE if architecture.shares_embeddings else TARGET_TABLE
    return target_embeddings(architecture).names.tokens, table


def _layer(ours: str, theirs: str, group: LayerGroup) -> Iterator[tuple[str, list[str]]]:
    if group.HasField("ssru"):
        yield f"{ours}.ssru.gates", [f"{theirs}_rnn_Wf", f"{theirs}_rnn_W"]
    else:
        matrices = [f"{theirs}_self_W{each}" for each in "qkv"]
        yield f"{ours}.self_attention.query_key_value", matrices
        yield f"{ours}.self_attention.output", [f"{theirs}_self_Wo"]
    for number in (1, 2):
        yield f"{ours}.feed_forward.{2 * (number - 1)}", [f"{theirs}_ffn_W{number}"]
