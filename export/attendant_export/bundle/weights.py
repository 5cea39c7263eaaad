"""Reads the weights that the graphs of a bundle use. The only module that reads ONNX."""

from pathlib import Path

import numpy as np
import onnx
from attendant.v1.bundle_pb2 import Graph, PrecisionGraphs
from google.protobuf.message import DecodeError

from attendant_export.bundle.manifest import BundleError, graphs_of
from attendant_export.graphs.builder import Array, StoredWeights


def read_weights(folder: Path, graphs: PrecisionGraphs) -> StoredWeights:
    """The weights of all graphs of one precision, in mapped memory. Changing one changes no file.

    Raises BundleError if a graph or a weight cannot be read, if a graph refers to a file that is
    not among the weights of the precision, or if two graphs have different weights of one name.
    """
    tensors: dict[str, onnx.TensorProto] = {}
    files: dict[str, Array] = {}
    arrays: dict[str, Array] = {}
    for graph in graphs_of(graphs):
        path = folder / graph.path
        for tensor in _read_graph(path).initializer:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            location = {entry.key: entry.value for entry in tensor.external_data}.get("location")
            if location is None or location not in graphs.weights:
                raise BundleError(
                    f"{path}: {tensor.name} is in the file {location}, which is not among the "
                    f"weights of {graphs.name}"
                )
            if tensors.setdefault(tensor.name, tensor) != tensor:
                raise BundleError(f"{path}: {tensor.name} is another weight in another graph")
            if tensor.name not in arrays:
                try:
                    if location not in files:
                        files[location] = np.memmap(folder / location, np.uint8, mode="c")
                    arrays[tensor.name] = _array(tensor, files[location])
                except (OSError, ValueError) as error:
                    raise BundleError(f"{path}: {tensor.name}: External data {error}") from error
    return StoredWeights(tensors, arrays)


def parameter_shapes(folder: Path, graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights and constants that the nodes of a graph use, by name."""
    read = _read_graph(folder / graph.path)
    used = {name for node in read.node for name in node.input}
    return {each.name: tuple(each.dims) for each in read.initializer if each.name in used}


def _read_graph(path: Path) -> onnx.GraphProto:
    try:
        return onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise BundleError(f"{path} is not an ONNX file: {error}") from error


def _array(tensor: onnx.TensorProto, content: Array) -> Array:
    """The part of a file that a tensor refers to. Raises ValueError if it is not in the file."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    offset = int(entries.get("offset", 0))
    length = int(entries.get("length", len(content) - offset))
    if not 0 <= offset <= offset + length <= len(content):
        raise ValueError(f"at {offset} + {length} is not in a file of {len(content)} bytes")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    array: Array = content[offset : offset + length].view(dtype).reshape(tuple(tensor.dims))
    return array
