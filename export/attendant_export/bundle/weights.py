"""Reads the weights of a bundle: as parameters of a model, or to build other graphs of them.

The only module that reads ONNX.
"""

from pathlib import Path

import onnx
import torch
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import Graph, PrecisionGraphs
from google.protobuf.message import DecodeError
from torch import Tensor

from attendant_export.bundle.manifest import BundleError, check_files, graphs_of, read_manifest
from attendant_export.graphs.builder import LayoutError, StoredWeights
from attendant_export.graphs.parameters import model_parameters, stored_parameters
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
    parameters = model_parameters(read_weights(folder, graphs).arrays, manifest.architecture)
    return {name: torch.from_numpy(array) for name, array in parameters.items()}


def check_weights(folder: Path, graphs: PrecisionGraphs, architecture: Architecture) -> None:
    """Raise BundleError unless graphs of a precision hold the weights that ``architecture`` needs.

    The error lists every missing, unexpected or misshapen weight.
    """
    fitting_parameters(graphs.name, read_weights(folder, graphs), architecture)


def fitting_parameters(
    precision: str, weights: StoredWeights, architecture: Architecture
) -> dict[str, Tensor]:
    """The fp32 parameters of the model of ``architecture``, by state-dict name.

    Quantized weights are dequantized. Embeddings of token types that a table of positions includes
    are 0. Raises BundleError that lists every missing, unexpected or misshapen weight.
    """
    try:
        stored, _ = stored_parameters(weights.arrays, architecture)
        found = model_parameters(stored, architecture)
    except ValueError as error:
        raise BundleError(
            f"the {precision} weights do not fit the architecture: {error}"
        ) from error
    with torch.device("meta"):
        model_of = EncoderDecoder if architecture.HasField("decoder") else Encoder
        wanted = {n: tuple(t.shape) for n, t in model_of(architecture).state_dict().items()}
    parameters = {name: torch.from_numpy(array).float() for name, array in found.items()}
    for name, shape in wanted.items():
        # The table of positions may include the embedding of token type 0.
        if name not in found and name.endswith(TOKEN_TYPES):
            parameters[name] = torch.zeros(shape)
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    problems = [
        f"{name} is {shapes.get(name, 'missing')}, and the architecture's is {wanted.get(name)}"
        for name in sorted(shapes.keys() | wanted.keys())
        if shapes.get(name) != wanted.get(name)
    ]
    if problems:
        raise BundleError(
            f"the {precision} weights do not fit the architecture: " + "; ".join(problems)
        )
    return parameters


def read_weights(folder: Path, graphs: PrecisionGraphs) -> StoredWeights:
    """The weights of all graphs of one precision.

    Raises BundleError if a graph or a weight cannot be read, if a graph refers to a file that is
    not among the weights of the precision, or if two graphs have different weights of one name.
    """
    tensors: dict[str, onnx.TensorProto] = {}
    for graph in graphs_of(graphs):
        for tensor in _read_graph(folder, graph).initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            location = {entry.key: entry.value for entry in tensor.external_data}.get("location")
            if location not in graphs.weights:
                raise BundleError(
                    f"{folder / graph.path}: {tensor.name} is in the file {location}, which is not "
                    f"among the weights of {graphs.name}"
                )
            if tensors.setdefault(tensor.name, tensor) != tensor:
                raise BundleError(
                    f"{folder / graph.path}: {tensor.name} is another weight in another graph"
                )
    try:
        return StoredWeights(tensors, folder)
    except LayoutError as error:
        raise BundleError(f"{folder}: {error}") from error


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
