"""Writes the graphs and weights of a model in one precision to a folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import PrecisionGraphs, StepGraph
from torch import nn

from attendant_export.data.shortlists import Shortlists
from attendant_export.graphs.builder import Array, WeightFile
from attendant_export.graphs.embedding import build_embedder, build_mlm_head
from attendant_export.graphs.layers import Layers
from attendant_export.graphs.parameters import graph_parameters
from attendant_export.graphs.quantization import Int8Layers
from attendant_export.graphs.step_interface import SHORTLIST
from attendant_export.graphs.steps import (
    build_decoder_step,
    build_greedy_step,
    build_greedy_steps,
)
from attendant_export.graphs.translation import build_encoder, build_scorer
from attendant_export.models.embeddings import longest_text
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder

PRECISIONS = ("fp32", "int8", "fp16")
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
) -> PrecisionGraphs:
    """Write the graphs of ``model`` for texts of at most ``max_positions`` tokens.

    ``precision`` is one of `PRECISIONS`. By default, the limit is `MAX_POSITIONS` tokens or the
    number of the model's positions, if that is smaller. With ``shortlists``, also writes steps that
    use them. The paths in the result are relative to ``folder``. Raises ValueError that names a
    field of the architecture that graphs do not support.
    """
    network = model.architecture
    builders: dict[str, Builder] = {
        "encoder": lambda g: build_encoder(g, network, shortlists),
        "decoder_step": lambda g: build_decoder_step(g, "decoder_step", network),
        "greedy_step": lambda g: build_greedy_step(g, "greedy_step", network),
        "greedy_steps": lambda g: build_greedy_steps(g, "greedy_steps", network),
        "scorer": lambda g: build_scorer(g, network),
    }
    if shortlists is not None:
        for name, build in (
            ("shortlist_decoder_step", build_decoder_step),
            ("shortlist_greedy_steps", build_greedy_steps),
        ):
            builders[name] = partial(build, name=name, architecture=network, has_shortlist=True)
    graphs = _write(model, network, builders, precision, folder, max_positions)
    if shortlists is not None:
        graphs.shortlist_output = SHORTLIST
    return graphs


def write_embedding_graphs(
    model: Encoder, precision: str, folder: Path, max_positions: int | None = None
) -> PrecisionGraphs:
    """Write the embedder and, for a model with a head, mlm_head.

    The parameters are those of `write_translation_graphs`.
    """
    network = model.architecture
    builders: dict[str, Builder] = {"embedder": lambda g: build_embedder(g, network)}
    if network.HasField("head"):
        builders["mlm_head"] = lambda g: build_mlm_head(g, network)
    return _write(model, network, builders, precision, folder, max_positions)


def _write(
    model: nn.Module,
    architecture: Architecture,
    builders: dict[str, Builder],
    precision: str,
    folder: Path,
    max_positions: int | None,
) -> PrecisionGraphs:
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    max_positions = max_positions or longest_text(architecture, MAX_POSITIONS)
    parameters = graph_parameters(model, architecture, max_positions)
    written = PrecisionGraphs(name=precision)
    with WeightFile(folder / f"weights.{precision}.bin") as weights:
        written.weights.append(weights.path.name)
        for name, build in builders.items():
            layers = _layers(name, weights, parameters, precision)
            step = build(layers)
            graph = layers.write(folder / f"{name}.{precision}.onnx")
            if step is None:
                getattr(written, name).CopyFrom(graph)
            else:
                step.graph.CopyFrom(graph)
                written.steps.append(step)
    return written


def _layers(name: str, weights: WeightFile, parameters: dict[str, Array], precision: str) -> Layers:
    if precision == "int8":
        return Int8Layers(name, weights, parameters)
    dtype: type[np.floating[Any]] = np.float16 if precision == "fp16" else np.float32
    return Layers(name, weights, parameters, dtype)
