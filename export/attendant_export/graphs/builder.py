"""The builder of ONNX graphs: nodes, constants, and the weights that graphs share.

The only module that creates ONNX. Does not depend on networks or precisions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import onnx
from attendant.v1 import bundle_pb2
from attendant_manifest.operators import OPERATORS
from numpy.typing import DTypeLike, NDArray
from onnx import helper

Array = NDArray[Any]
Dimension = int | str
"""A fixed size, or the name of a dynamic dimension."""

MICROSOFT = "com.microsoft"
OPSETS = {"": 24, MICROSOFT: 1}
IR_VERSION = 12
ALIGNMENT_BYTES = 64
"""Alignment of weights in the file, so that they can be used in place from mapped memory."""


class LayoutError(ValueError):
    """Stored weights differ from the weights that graphs of this version need."""


def element_type(dtype: DTypeLike) -> int:
    """ONNX's number for the type of a tensor's elements, as attributes of operators state it."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class Weights(Protocol):
    """The source of the named initializers of graphs."""

    def add(self, name: str, make: Callable[[], Array]) -> onnx.TensorProto:
        """The initializer ``name`` with the content of ``make``, stored once for all graphs."""


class WeightFile:
    """External data of several graphs. Each named weight is stored once for all graphs.

    A context manager, whose end completes the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._tensors: dict[str, onnx.TensorProto] = {}

    def __enter__(self) -> "WeightFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, name: str, make: Callable[[], Array]) -> onnx.TensorProto:
        """The initializer ``name``; its first use makes the array and appends it to the file."""
        if name not in self._tensors:
            self._tensors[name] = self._append(name, np.ascontiguousarray(make()))
        return self._tensors[name]

    def _append(self, name: str, array: Array) -> onnx.TensorProto:
        self._file.write(bytes(-self._file.tell() % ALIGNMENT_BYTES))
        location = {"location": self.path.name, "offset": self._file.tell(), "length": array.nbytes}
        self._file.write(array.reshape(-1).view(np.uint8).data)  # without a copy of the array
        return onnx.TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            data_location=onnx.TensorProto.EXTERNAL,
            external_data=[
                onnx.StringStringEntryProto(key=key, value=str(value))
                for key, value in location.items()
            ],
        )


class StoredWeights:
    """External data of existing graphs, which new graphs use in place. Writes no files."""

    def __init__(
        self, tensors: Mapping[str, onnx.TensorProto], arrays: Mapping[str, Array]
    ) -> None:
        """Initializers that refer to external data, and the content of that data, by name."""
        self._tensors, self.arrays = tensors, arrays

    def add(self, name: str, make: Callable[[], Array]) -> onnx.TensorProto:
        """The initializer ``name``. Raises LayoutError unless its bytes are those of ``make``."""
        stored, array = self.arrays.get(name), make()
        if stored is None:
            raise LayoutError(f"{name} is missing")
        if (stored.dtype, stored.shape) != (array.dtype, array.shape):
            raise LayoutError(
                f"{name} is {describe_array(stored)}, and graphs of this version need "
                f"{describe_array(array)}"
            )
        if stored.tobytes() != array.tobytes():
            raise LayoutError(f"{name} has its values in another order than graphs of this version")
        return self._tensors[name]


def describe_array(array: Array) -> str:
    """Type and shape, for messages."""
    return f"{array.dtype}{list(array.shape)}"


class GraphBuilder:
    """Builds one graph node by node. Values are named by strings, as in ONNX itself."""

    def __init__(self, name: str, weights: Weights) -> None:
        self.name = name
        self._weights = weights
        self._graph = onnx.GraphProto(name=name)
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._exposed: dict[str, str] = {}
        self._numbers = count()

    def body(self, name: str) -> Self:
        """A builder of the body of a loop of this graph.

        The body shares the weights of this graph and may use its values. Names of its inputs and
        outputs must differ from those of the graph.
        """
        body = copy(self)
        body.name, body._graph = name, onnx.GraphProto(name=name)
        return body

    def last_state(self, body: "GraphBuilder", first: str, sequence: str) -> str:
        """The state after a loop over the elements of ``sequence``, along its first dimension.

        ``body`` is complete. It maps a state and an element to the next state.
        """
        return self.op("Scan", first, sequence, body=body._graph, num_scan_inputs=1)

    def scan(
        self, body: "GraphBuilder", firsts: Sequence[str], sequences: Sequence[str]
    ) -> list[str]:
        """The results of a loop over the positions of ``sequences``, along their second dimension.

        ``body`` is complete. It maps states, which begin as ``firsts``, and an element of each
        sequence to the next states and the results, which become sequences, too.
        """
        count = len(body._graph.output) - len(firsts)
        found = self.ops(
            *("Scan", *firsts, *sequences),
            num_results=len(firsts) + count,
            body=body._graph,
            num_scan_inputs=len(sequences),
            scan_input_axes=[1] * len(sequences),
            scan_output_axes=[1] * count,
        )
        return found[len(firsts) :]

    def each_result(self, body: "GraphBuilder", sequence: str) -> str:
        """The results of a loop over the elements of ``sequence``, along its first dimension.

        ``body`` is complete. It maps an element to a result; all results have the same shape.
        """
        return self.op("Scan", sequence, body=body._graph, num_scan_inputs=1)

    def input(self, name: str, dtype: DTypeLike, *shape: Dimension) -> str:
        """Declare an input of the graph and return its name."""
        self._graph.input.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: DTypeLike, *shape: Dimension) -> None:
        """Declare that ``value``, computed by a node, is the output ``name`` of the graph."""
        self._graph.output.append(_value_info(name, dtype, shape))
        self._exposed[value] = name

    def op(self, op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return it. Pass "" for an absent optional input."""
        return self.ops(op_type, *inputs, num_results=1, domain=domain, **attributes)[0]

    def ops(
        self, op_type: str, *inputs: str, num_results: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with ``num_results`` outputs and return them."""
        outputs = [f"{op_type}_{number}" for number in islice(self._numbers, num_results)]
        node = helper.make_node(
            op_type, inputs, outputs, name=outputs[0], domain=domain, **attributes
        )
        self._graph.node.append(node)
        return outputs

    def weight(self, name: str, make: Callable[[], Array]) -> str:
        """A named tensor among the shared weights, which ``make`` computes if it is needed."""
        if name not in self._initializers:
            self._initializers[name] = self._weights.add(name, make)
        return name

    def constant(self, array: Array) -> str:
        """A small tensor in the graph's own file. Equal arrays share one tensor."""
        name = f"{array.dtype}{list(array.shape)}:{array.tobytes().hex()}"
        if name not in self._initializers:
            self._initializers[name] = onnx.numpy_helper.from_array(array, name)
        return name

    def cast(self, x: str, dtype: DTypeLike) -> str:
        """``x`` converted to ``dtype``."""
        return self.op("Cast", x, to=element_type(dtype))

    def split(self, x: str, num_parts: int, axis: int) -> list[str]:
        """``x`` split into equal parts along ``axis``."""
        return self.ops("Split", x, num_results=num_parts, num_outputs=num_parts, axis=axis)

    def split_into(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """``x`` split into parts of the given sizes along ``axis``."""
        if len(set(sizes)) == 1:
            return self.split(x, len(sizes), axis)
        return self.ops("Split", x, self.integers(*sizes), num_results=len(sizes), axis=axis)

    def integer(self, value: int) -> str:
        """A constant int64 scalar, such as an index or a bound."""
        return self.constant(np.array(value, np.int64))

    def integers(self, *values: int) -> str:
        """A constant int64 vector, such as a shape, axes or bounds."""
        return self.constant(np.array(values, np.int64))

    def write(self, path: Path) -> bundle_pb2.Graph:
        """Write the graph next to its weights and return its description."""
        self._expose(self._graph.node)
        self._graph.initializer.extend(self._initializers.values())
        model = helper.make_model(
            self._graph,
            producer_name="attendant-export",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid(*opset) for opset in OPSETS.items()],
        )
        path.write_bytes(model.SerializeToString(deterministic=True))
        return bundle_pb2.Graph(
            path=path.name,
            inputs=[value.name for value in self._graph.input],
            outputs=[value.name for value in self._graph.output],
        )

    def _expose(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Give outputs of the graph, and of bodies of loops, their names."""
        for node in nodes:
            assert node.op_type in OPERATORS[node.domain], f"servers refuse {node.op_type}"
            node.input[:] = [self._exposed.get(value, value) for value in node.input]
            node.output[:] = [self._exposed.get(value, value) for value in node.output]
            for attribute in node.attribute:
                self._expose(attribute.g.node)


def _value_info(name: str, dtype: DTypeLike, shape: Sequence[Dimension]) -> onnx.ValueInfoProto:
    element_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, element_type, shape)
