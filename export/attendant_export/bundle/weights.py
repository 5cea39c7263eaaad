"""Reads the weights of a bundle as model parameters, for the start of a training.

The only module that reads ONNX.
"""

from pathlib import Path

import onnx
import torch
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import Graph, PrecisionGraphs
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor

from attendant_export.bundle.manifest import BundleError, check_files, read_manifest
from attendant_export.graphs.builder import Array
from attendant_export.graphs.parameters import model_parameters
from attendant_export.models.embeddings import SOURCE
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder

TOKEN_TYPES = f"{SOURCE.token_types}.weight"


def read_parameters(folder: Path) -> dict[str, Tensor]:
    """Parameters by state-dict name, from fp32 weights or else from fp16 weights.

    An embedding bundle has no ``segment_embedding.weight``. Raises BundleError for a damaged
    bundle, and for one with neither precision.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    by_name = {graphs.name: graphs for graphs in manifest.precisions}
    graphs = by_name.get("fp32", by_name.get("fp16"))
    if graphs is None:
        raise BundleError(f"{folder} has neither fp32 nor fp16 weights to start from")
    parameters = model_parameters(_read_initializers(folder, graphs), manifest.architecture)
    return {name: torch.from_numpy(array) for name, array in parameters.items()}


def check_weights(folder: Path, graphs: PrecisionGraphs, architecture: Architecture) -> None:
    """Raise BundleError unless fp32 or fp16 graphs hold the weights that ``architecture`` needs.

    The error lists every missing, unexpected or misshapen weight.
    """
    found = model_parameters(_read_initializers(folder, graphs), architecture)
    with torch.device("meta"):
        model_of = EncoderDecoder if architecture.HasField("decoder") else Encoder
        wanted = {n: tuple(t.shape) for n, t in model_of(architecture).state_dict().items()}
    # The table of positions may include the embedding of token type 0.
    wanted = {n: s for n, s in wanted.items() if n in found or not n.endswith(TOKEN_TYPES)}
    shapes = {name: found[name].shape for name in found}
    problems = [
        f"{name} is {shapes.get(name, 'missing')}, and the architecture's is {wanted.get(name)}"
        for name in sorted(shapes.keys() | wanted.keys())
        if shapes.get(name) != wanted.get(name)
    ]
    if problems:
        raise BundleError("the weights do not fit the architecture: " + "; ".join(problems))


def _read_initializers(folder: Path, graphs: PrecisionGraphs) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    fields = [value for _, value in graphs.ListFields() if isinstance(value, Graph)]
    for graph in [*fields, *(step.graph for step in graphs.steps)]:
        for tensor in _read_graph(folder, graph).initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                try:
                    array = numpy_helper.to_array(tensor, base_dir=str(folder))
                except (ValueError, onnx.checker.ValidationError) as error:
                    raise BundleError(f"{folder / graph.path}: {tensor.name}: {error}") from error
                tensors[tensor.name] = array.copy()
    return tensors


def parameter_shapes(folder: Path, graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights and constants that the nodes of a graph use, by name."""
    read = _read_graph(folder, graph)
    used = {name for node in read.node for name in node.input}
    return {each.name: tuple(each.dims) for each in read.initializer if each.name in used}


def _read_graph(folder: Path, graph: Graph) -> onnx.GraphProto:
    path = folder / graph.path
    try:
        return onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise BundleError(f"{path} is not an ONNX file: {error}") from error
