"""Writes the graphs of a model in one precision to a folder, with weights or for stored weights."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import PrecisionGraphs, StepGraph
from attendant_manifest.attention import attention_outputs
from attendant_manifest.rules import PRECISIONS
from attendant_manifest.sizes import num_source_heads
from torch import nn

from attendant_export.data.shortlists import Shortlists
from attendant_export.graphs.attention_weights import (
    build_encoder_attention,
    build_translation_attention,
)
from attendant_export.graphs.builder import Array, StoredWeights, WeightFile, Weights
from attendant_export.graphs.embedding import build_embedder, build_mlm_head
from attendant_export.graphs.language_model import build_prefill, build_text_scorer
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.parameters import (
    SHORTLIST_TABLES,
    graph_parameters,
    stored_parameters,
)
from attendant_export.graphs.quantization import INPUT_SCALE, Int8Layers, QuantizedWeight
from attendant_export.graphs.smoothing import input_ranges, smoothing_factors
from attendant_export.graphs.sparse_head import build_sparse_head
from attendant_export.graphs.step_interface import SHORTLIST
from attendant_export.graphs.steps import (
    build_decoder_step,
    build_greedy_step,
    build_greedy_steps,
)
from attendant_export.graphs.translation import build_aligner, build_encoder, build_scorer
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.embeddings import longest_text
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder

MAX_POSITIONS = 512
"""Default limit of tokens of a text."""

Builder = Callable[[Layers], StepGraph | None]
"""Builds a graph. Returns the signature of a step graph, None for other graphs."""


def write_translation_graphs(
    model: EncoderDecoder,
    precision: str,
    folder: Path,
    max_positions: int | None = None,
    shortlists: Shortlists | None = None,
    input_scales: Mapping[str, float] = MappingProxyType({}),
    penalizes_repetition: bool = False,
) -> PrecisionGraphs:
    """Write the graphs of ``model`` for texts of at most ``max_positions`` tokens.

    ``precision`` is one of `PRECISIONS`. By default, the limit is `MAX_POSITIONS` tokens or the
    number of the model's positions, if that is smaller. With ``shortlists``, also writes steps that
    use them. ``input_scales`` are fixed scales of the inputs of int8 products, by the names of
    linear layers and vocabulary tables. With ``penalizes_repetition``, the step for any number of
    rows takes repetition penalties. The paths in the result are relative to ``folder``. Raises
    ValueError that names a field of the architecture that graphs do not support.
    """
    builders = _translation_builders(model.architecture, shortlists, penalizes_repetition)
    fixed = partial(_fixed, input_scales)
    return _write_model(
        model, model.architecture, builders, precision, folder, max_positions, fixed
    )


def write_language_model_graphs(
    model: CausalLanguageModel,
    precision: str,
    folder: Path,
    max_positions: int | None = None,
    texts: Iterable[list[int]] = (),
) -> PrecisionGraphs:
    """Write the prefill, the steps and the scorer of a causal language model.

    Its step for any number of rows takes repetition penalties, which any request may state.
    ``texts`` are token ids by which the inputs of int8 products are smoothed. The other parameters
    are those of `write_translation_graphs`.
    """
    builders = _language_model_builders(model.architecture)
    ranges = input_ranges(model, texts) if precision == "int8" else {}
    smoothing = partial(smoothing_factors, ranges)
    return _write_model(
        model, model.architecture, builders, precision, folder, max_positions, smoothing
    )


def write_embedding_graphs(
    model: Encoder,
    precision: str,
    folder: Path,
    max_positions: int | None = None,
    texts: Iterable[list[int]] = (),
) -> PrecisionGraphs:
    """Write the embedder; for a model with a head, sparse_head or mlm_head; with layers, attention.

    ``texts`` are token ids by which the inputs of int8 products are smoothed. The other parameters
    are those of `write_translation_graphs`.
    """
    builders = _embedding_builders(model.architecture)
    ranges = input_ranges(model, texts) if precision == "int8" else {}
    smoothing = partial(smoothing_factors, ranges)
    return _write_model(
        model, model.architecture, builders, precision, folder, max_positions, smoothing
    )


def write_graphs_of(
    stored: StoredWeights,
    architecture: Architecture,
    precision: str,
    folder: Path,
    penalizes_repetition: bool = False,
) -> PrecisionGraphs:
    """Write the graphs of ``architecture`` for ``stored`` weights, which stay as they are.

    ``folder`` is that of the weight files, whose paths the result lacks. Weights with shortlists
    get the steps that use them. With ``penalizes_repetition``, the step of a translation model for
    any number of rows takes repetition penalties. Raises LayoutError for weights that graphs of
    this version store in another way.
    """
    parameters, quantized = stored_parameters(stored.arrays, architecture)
    if not architecture.HasField("encoder"):
        builders = _language_model_builders(architecture)
    elif architecture.HasField("decoder"):
        shortlists = _stored_shortlists(stored.arrays)
        builders = _translation_builders(architecture, shortlists, penalizes_repetition)
    else:
        builders = _embedding_builders(architecture)
    new_layers = partial(_layers, precision, stored, parameters, quantized)
    return _write_graphs(builders, new_layers, precision, folder)


def _fixed(input_scales: Mapping[str, float], parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Fixed scales of inputs by parameter name; raises ValueError for an unknown layer."""
    unknown = [name for name in input_scales if f"{name}.weight" not in parameters]
    if unknown:
        raise ValueError(f"the graphs have no linear layer {', '.join(unknown)}")
    return {name + INPUT_SCALE: np.array(x, np.float32) for name, x in input_scales.items()}


def _stored_shortlists(arrays: Mapping[str, Array]) -> Shortlists | None:
    translations, frequent = (arrays.get(name) for name in SHORTLIST_TABLES)
    if translations is None or frequent is None:
        return None
    return Shortlists(frequent=frequent, translations=translations)


def _translation_builders(
    network: Architecture, shortlists: Shortlists | None, penalizes_repetition: bool
) -> dict[str, Builder]:
    builders: dict[str, Builder] = {
        "encoder": lambda g: build_encoder(g, network, shortlists),
        "decoder_step": lambda g: build_decoder_step(
            g, network, penalizes_repetition=penalizes_repetition
        ),
        "greedy_step": lambda g: build_greedy_step(g, network),
        "greedy_steps": lambda g: build_greedy_steps(g, network),
        "scorer": lambda g: build_scorer(g, network),
    }
    if any(map(num_source_heads, network.decoder.groups)):
        builders["aligner"] = lambda g: build_aligner(g, network)
    if any(name for names in attention_outputs(network).values() for name in names):
        builders["attention"] = lambda g: build_translation_attention(g, network)
    if shortlists is not None:
        for name, build in (
            ("shortlist_decoder_step", build_decoder_step),
            ("shortlist_greedy_steps", build_greedy_steps),
        ):
            builders[name] = partial(build, architecture=network, has_shortlist=True)
    return builders


def _language_model_builders(network: Architecture) -> dict[str, Builder]:
    return {
        "encoder": lambda g: build_prefill(g, network),
        "decoder_step": lambda g: build_decoder_step(g, network, penalizes_repetition=True),
        "greedy_steps": lambda g: build_greedy_steps(g, network),
        "scorer": lambda g: build_text_scorer(g, network),
    }


def _embedding_builders(network: Architecture) -> dict[str, Builder]:
    builders: dict[str, Builder] = {"embedder": lambda g: build_embedder(g, network)}
    if network.HasField("sparse_vectors"):
        builders["sparse_head"] = lambda g: build_sparse_head(g, network)
    elif network.HasField("head"):
        builders["mlm_head"] = lambda g: build_mlm_head(g, network)
    if network.encoder.groups:
        builders["attention"] = lambda g: build_encoder_attention(g, network)
    return builders


def _write_model(
    model: nn.Module,
    architecture: Architecture,
    builders: dict[str, Builder],
    precision: str,
    folder: Path,
    max_positions: int | None,
    quantization: Callable[[Mapping[str, Array]], Mapping[str, Array]],
) -> PrecisionGraphs:
    """``quantization`` makes further parameters of int8 graphs from the others."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    max_positions = max_positions or longest_text(architecture, MAX_POSITIONS)
    parameters = graph_parameters(model, architecture, max_positions)
    parameters |= quantization(parameters)
    with WeightFile(folder / f"weights.{precision}.bin") as weights:
        new_layers = partial(_layers, precision, weights, parameters, {})
        written = _write_graphs(builders, new_layers, precision, folder)
        written.weights.append(weights.path.name)
    return written


def _write_graphs(
    builders: Mapping[str, Builder],
    new_layers: Callable[[str], Layers],
    precision: str,
    folder: Path,
) -> PrecisionGraphs:
    written = PrecisionGraphs(name=precision)
    for name, build in builders.items():
        layers = new_layers(name)
        step = build(layers)
        graph = layers.write(folder / f"{name}.{precision}.onnx")
        if step is None:
            getattr(written, name).CopyFrom(graph)
        else:
            step.graph.CopyFrom(graph)
            written.steps.append(step)
    if SHORTLIST in written.encoder.outputs:
        written.shortlist_output = SHORTLIST
    return written


def _layers(
    precision: str,
    weights: Weights,
    parameters: Mapping[str, Array],
    quantized: Mapping[str, QuantizedWeight],
    name: str,
) -> Layers:
    if precision == "int8":
        return Int8Layers(name, weights, parameters, quantized)
    dtype: type[np.floating[Any]] = np.float16 if precision == "fp16" else np.float32
    return Layers(name, weights, parameters, dtype)
