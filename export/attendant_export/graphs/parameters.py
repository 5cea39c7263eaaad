"""Converts the parameters of a model to those of its graphs, and back.

Graphs store only the used rows of position tables, only the vector of token type 0 unless types
are an input, one joint layer for the cross-attention keys and values of all decoder layers, one for
both gates of an SSRU, and one for the inputs of both directions of a GRU or an LSTM. They lack what
adds noise to the choice of experts in training. Graphs of steps also have tables of rotations.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from attendant.v1.architecture_pb2 import Architecture, Attention, Recurrent
from torch import nn

from attendant_export.graphs.attention import inner_width
from attendant_export.graphs.builder import Array
from attendant_export.graphs.embeddings import (
    EmbeddingsOfGraphs,
    source_embeddings,
    target_embeddings,
)
from attendant_export.graphs.quantization import (
    INPUT_SCALE,
    SCALES,
    SMOOTHING,
    QuantizedWeight,
    restore_columns,
)
from attendant_export.graphs.rotations import names_of_rotations, rotations
from attendant_export.models.embeddings import (
    SINUSOIDS,
    embedding_width,
    max_text_tokens,
    sinusoids,
)
from attendant_export.models.recurrent import direction_suffixes, recurrent_layers
from attendant_export.models.stack import each_layer
from attendant_export.models.unsupported import unsupported

KEYS_VALUES = "decoder.cross_attention.keys_values"
SHORTLIST_TABLES = "shortlist.translations", "shortlist.frequent"
KINDS = ("weight", "bias")
_GATE, _NOISE = (f".mixture_of_experts.{part}.weight" for part in ("gate", "noise"))


def graph_parameters(
    model: nn.Module, architecture: Architecture, max_positions: int
) -> dict[str, Array]:
    """The fp32 parameters of graphs for texts of at most ``max_positions`` tokens.

    Raises ValueError if the model has fewer learned positions.
    """
    parameters = {name: value.float().cpu().numpy() for name, value in model.state_dict().items()}
    _join_cross_attention(parameters, architecture)
    _join_gates(parameters, architecture)
    _join_directions(parameters, architecture)
    for side in _sides(architecture):
        width = embedding_width(side.part, architecture.d_model)
        _write_positions(parameters, side, width, max_positions)
    return parameters | rotations(architecture, max_positions)


def model_parameters(
    parameters: Mapping[str, Array], architecture: Architecture
) -> dict[str, Array]:
    """The parameters of the model by name, restored from those of fp32 or fp16 graphs.

    Position rows that graphs do not store are 0. Embeddings of token types are missing if the table
    of positions includes them. The noise of experts is that of a new model. Raises ValueError if a
    table of positions is missing.
    """
    for side in _sides(architecture):
        if side.positions and side.positions not in parameters:
            raise ValueError(f"{side.positions} is missing")
    computed = names_of_rotations(architecture) | set(SHORTLIST_TABLES)
    restored = {
        name: array
        for name, array in parameters.items()
        if name not in computed and not name.endswith((SMOOTHING, INPUT_SCALE))
    }
    _part_cross_attention(restored, architecture)
    _part_gates(restored, architecture)
    _part_directions(restored, architecture)
    for name in [name for name in restored if name.endswith(_GATE)]:
        restored[name.removesuffix(_GATE) + _NOISE] = np.zeros_like(restored[name])
    for side in _sides(architecture):
        positions = side.part.positions
        if positions.kind in SINUSOIDS:
            restored.pop(side.positions, None)
        elif positions.offset and side.positions in restored:
            table = restored[side.positions]
            restored[side.positions] = np.pad(table, ((positions.offset, 0), (0, 0)))
        types = f"{side.names.token_types}.weight"
        if types in restored:
            missing = side.part.num_token_types - len(restored[types])
            restored[types] = np.pad(restored[types], ((0, missing), (0, 0)))
    return restored


def stored_parameters(
    arrays: Mapping[str, Array], architecture: Architecture
) -> tuple[dict[str, Array], dict[str, QuantizedWeight]]:
    """The parameters that graphs with the stored weights ``arrays`` compute with, by name.

    Also returns the quantized weights among them; their parameters are values * scales. Raises
    LayoutError for quantized weights that graphs of this version store in another way.
    """
    quantized = restore_columns(arrays, _vocabulary_tables(architecture))
    parameters = {
        name: array for name, array in arrays.items() if name.removesuffix(SCALES) not in quantized
    }
    for name, (values, scales) in quantized.items():
        factors = arrays.get(name.removesuffix(".weight") + SMOOTHING, np.float32(1))
        parameters[name] = values * scales[:, None] * factors
    return parameters, quantized


def _vocabulary_tables(architecture: Architecture) -> set[str]:
    """Names of the weights with a row for each token: embeddings, and projections that use one."""
    embeddings = {f"{side.names.tokens}.weight" for side in _sides(architecture)}
    return embeddings | {f"{head}.projection.weight" for head in ("head", "mask_head")}


def _sides(architecture: Architecture) -> list[EmbeddingsOfGraphs]:
    sides = []
    if architecture.HasField("encoder"):
        sides.append(source_embeddings(architecture))
    if architecture.HasField("decoder"):
        sides.append(target_embeddings(architecture))
    return sides


def _write_positions(
    parameters: dict[str, Array], side: EmbeddingsOfGraphs, width: int, max_positions: int
) -> None:
    part, types = side.part.positions, f"{side.names.token_types}.weight"
    if part.kind in SINUSOIDS:
        parameters[side.positions] = sinusoids(part, max_positions, width).numpy()
    elif side.positions:
        limit = max_text_tokens(part)
        if limit is not None and limit < max_positions:
            problem = f"with the offset {part.offset} is too few for texts of {max_positions}"
            raise unsupported(part, "num_positions", problem)
        parameters[side.positions] = parameters[side.positions][part.offset :]
    if types in parameters and not side.reads_token_types:
        first = parameters[types][:1]
        if side.folds_token_types:
            parameters[side.positions] = parameters[side.positions] + first[0]
            del parameters[types]
        else:
            parameters[types] = first


def _cross_attention(architecture: Architecture) -> Iterator[tuple[str, Attention]]:
    for i, group in enumerate(each_layer(architecture.decoder)):
        if group.HasField("cross_attention"):
            yield f"decoder.{i}.cross_attention", group.cross_attention


def _join_cross_attention(parameters: dict[str, Array], architecture: Architecture) -> None:
    layers = list(_cross_attention(architecture))
    for kind in KINDS:
        pieces: list[Array] = []
        for name, part in layers:
            inner = inner_width(part)
            fused = parameters.pop(f"{name}.query_key_value.{kind}", None)
            if fused is None:  # no bias
                pieces.append(np.zeros(2 * inner, np.float32))
                continue
            parameters[f"{name}.query.{kind}"] = fused[:inner]
            pieces.append(fused[inner:])
        if pieces and (kind == "weight" or any(part.has_bias for _, part in layers)):
            parameters[f"{KEYS_VALUES}.{kind}"] = np.concatenate(pieces)


def _part_cross_attention(parameters: dict[str, Array], architecture: Architecture) -> None:
    for kind in KINDS:
        joined = parameters.pop(f"{KEYS_VALUES}.{kind}", None)
        if joined is None:
            continue
        first = 0
        for name, part in _cross_attention(architecture):
            last = first + 2 * inner_width(part)
            query = parameters.pop(f"{name}.query.{kind}", None)
            if query is not None:
                fused = np.concatenate([query, joined[first:last]])
                parameters[f"{name}.query_key_value.{kind}"] = fused
            first = last


def _ssru_layers(architecture: Architecture) -> list[str]:
    layers = each_layer(architecture.decoder)
    return [f"decoder.{i}.ssru" for i, group in enumerate(layers) if group.HasField("ssru")]


def _join_gates(parameters: dict[str, Array], architecture: Architecture) -> None:
    for name in _ssru_layers(architecture):
        forget, candidate = (parameters.pop(f"{name}.{x}.weight") for x in ("forget", "candidate"))
        parameters[f"{name}.gates.weight"] = np.concatenate([forget, candidate])
        bias = parameters.pop(f"{name}.forget.bias")
        parameters[f"{name}.gates.bias"] = np.concatenate([bias, np.zeros_like(bias)])


def _part_gates(parameters: dict[str, Array], architecture: Architecture) -> None:
    width = architecture.d_model
    for name in _ssru_layers(architecture):
        weight = parameters.pop(f"{name}.gates.weight", None)
        if weight is not None:
            parameters[f"{name}.forget.weight"] = weight[:width]
            parameters[f"{name}.candidate.weight"] = weight[width:]
        bias = parameters.pop(f"{name}.gates.bias", None)
        if bias is not None:
            parameters[f"{name}.forget.bias"] = bias[:width]


def _recurrent_parts(architecture: Architecture) -> Iterator[tuple[str, Recurrent]]:
    for stack, part in (("encoder", architecture.encoder), ("decoder", architecture.decoder)):
        for number, recurrent in recurrent_layers(part):
            yield f"{stack}.{number}.recurrent", recurrent


def _join_directions(parameters: dict[str, Array], architecture: Architecture) -> None:
    for name, part in _recurrent_parts(architecture):
        suffixes = direction_suffixes(part)
        for kind in KINDS:
            inputs = [parameters.pop(f"{name}.cells.{kind}_ih_l0{each}") for each in suffixes]
            parameters[f"{name}.input.{kind}"] = np.concatenate(inputs)
            for each in suffixes:
                state = parameters.pop(f"{name}.cells.{kind}_hh_l0{each}")
                parameters[f"{name}.state{each}.{kind}"] = state


def _part_directions(parameters: dict[str, Array], architecture: Architecture) -> None:
    for name, part in _recurrent_parts(architecture):
        suffixes = direction_suffixes(part)
        for kind in KINDS:
            joined = parameters.pop(f"{name}.input.{kind}", None)
            pieces = [] if joined is None else np.split(joined, len(suffixes))
            for each, piece in zip(suffixes, pieces, strict=False):
                parameters[f"{name}.cells.{kind}_ih_l0{each}"] = piece
            for each in suffixes:
                state = parameters.pop(f"{name}.state{each}.{kind}", None)
                if state is not None:
                    parameters[f"{name}.cells.{kind}_hh_l0{each}"] = state
