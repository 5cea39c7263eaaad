"""The rules for the graphs of a bundle, which are checked before ONNX Runtime reads them."""

import math
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from attendant.v1 import bundle_pb2
from attendant_manifest.operators import OPERATORS

from attendant_server.bundles import Bundle, BundleError
from attendant_server.runtime.onnx_messages import parse_model

MAX_GRAPH_BYTES = 16 * 1024 * 1024
"""Largest ONNX file. Weights are in other files."""
MAX_NODES = 100_000
MAX_VALUES = 100_000
"""Most inputs, outputs or initializers of a graph, and most inputs or outputs of a node."""
_ELEMENT_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2}
"""Bytes of an element by ONNX's number of its type: fp32, uint8, int8, int32, int64, bool, fp16."""
_EXTERNAL = 1


def check_graphs(bundle: Bundle) -> None:
    """Check all graphs of the precision in use; raises BundleError that names the graph."""
    for graph in bundle.all_graphs:
        path = bundle.path_of(graph.path)
        try:
            if path.stat().st_size > MAX_GRAPH_BYTES:
                raise ValueError(f"larger than {MAX_GRAPH_BYTES} bytes")
            model = parse_model(path.read_bytes())
            if problem := next(_Rules(bundle, graph).problems(model), None):
                raise ValueError(problem)
        except ValueError as error:
            raise BundleError(f"{bundle.directory / graph.path}: {error}") from error


class _Rules:
    """The rules for one graph."""

    def __init__(self, bundle: Bundle, graph: bundle_pb2.Graph) -> None:
        self._folder = PurePosixPath(graph.path).parent
        sizes = {file.path: file.size_bytes for file in bundle.manifest.files}
        self._weights = {path: sizes.get(path, 0) for path in bundle.graphs.weights}

    def problems(self, model: Any) -> Iterator[str]:
        """Descriptions of all broken rules."""
        for operator_set in model.opset_import:
            if operator_set.domain not in OPERATORS:
                yield f"operators of the domain {operator_set.domain!r} are not supported"
        yield from self._graph_problems(model.graph, depth=0)

    def _graph_problems(self, graph: Any, depth: int) -> Iterator[str]:
        if len(graph.node) > MAX_NODES:
            yield f"has more than {MAX_NODES} nodes"
        for kind in ("input", "output", "initializer"):
            if len(getattr(graph, kind)) > MAX_VALUES:
                yield f"has more than {MAX_VALUES} values of the kind {kind}"
        for tensor in graph.initializer:
            if problem := self._tensor_problem(tensor):
                yield f"initializer {tensor.name[:100]!r}: {problem}"
        for node in graph.node:
            yield from self._node_problems(node, depth)

    def _node_problems(self, node: Any, depth: int) -> Iterator[str]:
        if node.op_type not in OPERATORS.get(node.domain, ()):
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            yield f"the operator {name[:100]!r} is not supported"
        if max(len(node.input), len(node.output)) > MAX_VALUES:
            yield f"a node has more than {MAX_VALUES} inputs or outputs"
        for attribute in node.attribute:
            if attribute.HasField("g"):
                if depth:
                    yield "has a loop in a loop"
                else:
                    yield from self._graph_problems(attribute.g, depth + 1)

    def _tensor_problem(self, tensor: Any) -> str | None:
        element_bytes = _ELEMENT_BYTES.get(tensor.data_type)
        if element_bytes is None:
            return f"the type {tensor.data_type} is not supported"
        if min(tensor.dims, default=0) < 0:
            return "has a negative dimension"
        needed = math.prod(tensor.dims) * element_bytes
        if tensor.data_location != _EXTERNAL:
            if len(tensor.raw_data) != needed or tensor.external_data:
                return f"has {len(tensor.raw_data)} bytes of data instead of {needed}"
            return None
        return self._external_problem(tensor, needed)

    def _external_problem(self, tensor: Any, needed: int) -> str | None:
        """The problem of a tensor of ``needed`` bytes whose data are in another file."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if tensor.raw_data or sorted(entries) != ["length", "location", "offset"]:
            return "must have a location, an offset and a length of external data"
        if len(entries) != len(tensor.external_data):
            return "has a location, an offset or a length of external data twice"
        path = (self._folder / entries["location"]).as_posix()
        if path not in self._weights:
            return f"its data are in {entries['location'][:100]!r}, which is no file of weights"
        numbers = entries["offset"], entries["length"]
        if not all(
            number.isascii() and number.isdigit() and len(number) < 20 for number in numbers
        ):
            return "the offset and the length of external data must be whole numbers"
        offset, length = map(int, numbers)
        if length != needed:
            return f"has {length} bytes of external data instead of {needed}"
        if offset + length > self._weights[path]:
            return f"its data end at {offset + length}, after the end of {path}"
        return None
