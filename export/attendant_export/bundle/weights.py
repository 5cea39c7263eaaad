"""Weights out of a bundle, so that training can start from it.

Turns what the graphs store back into the parameters of the models. Only place that reads ONNX.
"""

from pathlib import Path

import onnx
import torch
from attendant.v1.bundle_pb2 import Graph, PrecisionGraphs
from onnx import numpy_helper
from torch import Tensor

from attendant_export.bundle.kinds import kind_of_bundle
from attendant_export.bundle.manifest import BundleError, check_files, read_manifest


def read_parameters(folder: Path) -> dict[str, Tensor]:
    """Parameters by their state-dict names, from the most exact float precision of a bundle.

    Those of an embedding bundle lack ``segment_embedding.weight``.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    by_name = {graphs.name: graphs for graphs in manifest.precisions}
    graphs = by_name.get("fp32", by_name.get("fp16"))
    if graphs is None:
        raise BundleError(f"{folder} has neither fp32 nor fp16 weights to start from")
    parameters = _read_initializers(folder, graphs)
    kind_of_bundle(manifest).restore_parameters(parameters, manifest)
    return parameters


def _read_initializers(folder: Path, graphs: PrecisionGraphs) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    fields = [value for _, value in graphs.ListFields() if isinstance(value, Graph)]
    for graph in [*fields, *(step.graph for step in graphs.steps)]:
        model = onnx.load(folder / graph.path, load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                array = numpy_helper.to_array(tensor, base_dir=str(folder))
                tensors[tensor.name] = torch.from_numpy(array.copy())
    return tensors


def initializer_shapes(folder: Path, graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights and constants of a graph, by their names."""
    model = onnx.load(folder / graph.path, load_external_data=False)
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
