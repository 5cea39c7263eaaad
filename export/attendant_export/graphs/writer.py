"""Writes the graphs and weights of a model in one precision into a folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from attendant.v1.bundle_pb2 import PrecisionGraphs, StepGraph

from attendant_export.data.shortlists import Shortlists
from attendant_export.graphs.builder import WeightFile
from attendant_export.graphs.embedding import build_embedder, build_mlm_head, embedding_network
from attendant_export.graphs.layers import Layers, Network
from attendant_export.graphs.quantization import Int8Layers
from attendant_export.graphs.step_interface import SHORTLIST
from attendant_export.graphs.steps import (
    build_decoder_step,
    build_greedy_step,
    build_greedy_steps,
)
from attendant_export.graphs.translation import build_encoder, build_scorer, translation_network
from attendant_export.models.bert import Bert
from attendant_export.models.transformer import Transformer

PRECISIONS = ("fp32", "int8", "fp16")

Builder = Callable[[Layers], StepGraph | None]
"""Builds a graph; returns the signature of a step."""


def write_translation_graphs(
    model: Transformer,
    precision: str,
    folder: Path,
    max_positions: int = 512,
    shortlists: Shortlists | None = None,
) -> PrecisionGraphs:
    """Write the graphs of ``model`` for texts up to ``max_positions`` tokens.

    ``precision`` is one of `PRECISIONS`. With ``shortlists``, steps that choose from them are
    written as well. The paths of the answer are relative to ``folder``.
    """
    config = model.config
    num_layers = config.num_decoder_layers
    builders: dict[str, Builder] = {
        "encoder": lambda g: build_encoder(g, config.num_encoder_layers, num_layers, shortlists),
        "decoder_step": lambda g: build_decoder_step(g, "decoder_step", num_layers),
        "greedy_step": lambda g: build_greedy_step(g, "greedy_step", num_layers),
        "greedy_steps": lambda g: build_greedy_steps(g, "greedy_steps", num_layers),
        "scorer": lambda g: build_scorer(g, num_layers),
    }
    if shortlists is not None:
        for name, build in (
            ("shortlist_decoder_step", build_decoder_step),
            ("shortlist_greedy_steps", build_greedy_steps),
        ):
            builders[name] = partial(
                build, name=name, num_decoder_layers=num_layers, has_shortlist=True
            )
    graphs = _write(translation_network(model, max_positions), builders, precision, folder)
    if shortlists is not None:
        graphs.shortlist_output = SHORTLIST
    return graphs


def write_embedding_graphs(model: Bert, precision: str, folder: Path) -> PrecisionGraphs:
    """Write embedder and mlm_head of ``model``.

    ``precision`` is one of `PRECISIONS`. The paths of the answer are relative to ``folder``.
    """
    builders: dict[str, Builder] = {
        "embedder": lambda g: build_embedder(g, model.config.num_layers),
        "mlm_head": build_mlm_head,
    }
    return _write(embedding_network(model), builders, precision, folder)


def _write(
    network: Network, builders: dict[str, Builder], precision: str, folder: Path
) -> PrecisionGraphs:
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    written = PrecisionGraphs(name=precision)
    with WeightFile(folder / f"weights.{precision}.bin") as weights:
        written.weights.append(weights.path.name)
        for name, build in builders.items():
            layers = _layers(name, weights, network, precision)
            step = build(layers)
            graph = layers.write(folder / f"{name}.{precision}.onnx")
            if step is None:
                getattr(written, name).CopyFrom(graph)
            else:
                step.graph.CopyFrom(graph)
                written.steps.append(step)
    return written


def _layers(name: str, weights: WeightFile, network: Network, precision: str) -> Layers:
    if precision == "int8":
        return Int8Layers(name, weights, network)
    dtype: type[np.floating[Any]] = np.float16 if precision == "fp16" else np.float32
    return Layers(name, weights, network, dtype)
