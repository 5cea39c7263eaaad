"""Reads texts from the tensors of requests, and writes the tensors of answers."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from attendant_vendored.inference import grpc_service_pb2
from numpy.typing import NDArray

from attendant_server.application.validation import RequestLimits
from attendant_server.errors import InvalidRequest, Unsupported

BYTES, FP16, FP32, INT8, INT32, UINT8 = "BYTES", "FP16", "FP32", "INT8", "INT32", "UINT8"
LENGTH = struct.Struct("<I")
"""The length before each element of a raw tensor of bytes."""
SHARED_MEMORY = "shared_memory_"
"""The beginning of the names of parameters of tensors in shared memory."""
CLASSIFICATION = "classification"
MAX_TENSORS = 16
"""Inputs, and requested outputs, of one request: many more than any model has. It bounds the work
on the event loop for a request with tiny ones."""
DTYPES = {FP16: "<f2", FP32: "<f4", INT8: "i1", INT32: "<i4", UINT8: "u1"}
CONTENTS = {BYTES: "bytes_contents", FP32: "fp32_contents", INT8: "int_contents"} | {
    INT32: "int_contents",
    UINT8: "uint_contents",
}
"""The field of InferTensorContents for each data type; FP16 has none."""

Request = grpc_service_pb2.ModelInferRequest
Response = grpc_service_pb2.ModelInferResponse


@dataclass(frozen=True, slots=True)
class TextTensor:
    """The texts of an input."""

    texts: Sequence[str]
    is_column: bool
    """Whether its shape is (n, 1) instead of (n)."""


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """An output, row by row."""

    values: Sequence[str] | NDArray[Any]
    """Texts, or numbers of a dtype of `DTYPES`."""
    num_columns: int = 1
    """Values of each text."""
    is_scalar: bool = False
    """Whether a text has exactly one value, so that the shape is the one of the texts."""
    datatype: str = BYTES


def read_inputs(request: Request, limits: RequestLimits) -> dict[str, TextTensor]:
    """The texts of the inputs, by name.

    Raises InvalidRequest, or Unsupported for shared memory.
    """
    raw, num_inputs = request.raw_input_contents, len(request.inputs)
    for field, tensors in (("inputs", request.inputs), ("outputs", request.outputs)):
        if len(tensors) > MAX_TENSORS:
            raise InvalidRequest(field, f"at most {MAX_TENSORS}, got {len(tensors)}")
    _refuse_shared_memory(request)
    if raw and len(raw) != num_inputs:
        problem = f"must have one entry for each of {num_inputs} inputs, got {len(raw)}"
        raise InvalidRequest("raw_input_contents", problem)
    found: dict[str, TextTensor] = {}
    for i, tensor in enumerate(request.inputs):
        if tensor.name in found:
            raise InvalidRequest(f"inputs[{i}].name", "is the name of an earlier input")
        found[tensor.name] = _read_input(i, tensor, raw[i] if raw else None, limits)
    return found


def num_texts(request: Request) -> int:
    """The largest number of texts in an input, by the shapes, which may be wrong; at least 1."""
    shapes = [tensor.shape[0] for tensor in request.inputs[:MAX_TENSORS] if tensor.shape]
    return max(1, *shapes) if shapes else 1


def requested_outputs(request: Request) -> list[str]:
    """The names of the outputs that a request wants; empty for all of the model.

    Raises InvalidRequest, or Unsupported for shared memory and classification.
    """
    for i, output in enumerate(request.outputs):
        if CLASSIFICATION in output.parameters:
            raise Unsupported(f"outputs[{i}].parameters: {CLASSIFICATION} is not supported")
        if output.parameters:
            raise InvalidRequest(f"outputs[{i}].parameters", "must be empty")
    return [output.name for output in request.outputs]


def _refuse_shared_memory(request: Request) -> None:
    tensors = [(f"inputs[{i}]", each.parameters) for i, each in enumerate(request.inputs)]
    tensors += [(f"outputs[{i}]", each.parameters) for i, each in enumerate(request.outputs)]
    for field, parameters in tensors:
        if any(name.startswith(SHARED_MEMORY) for name in parameters):
            raise Unsupported(f"{field}.parameters: shared memory is not supported")


def _read_input(
    i: int, tensor: Request.InferInputTensor, raw: bytes | None, limits: RequestLimits
) -> TextTensor:
    field = f"inputs[{i}]"
    if tensor.parameters:
        raise InvalidRequest(f"{field}.parameters", "must be empty")
    if tensor.datatype != BYTES:
        raise InvalidRequest(f"{field}.datatype", f"must be {BYTES}")
    shape = tensor.shape
    is_column = len(shape) == 2 and shape[1] == 1
    if not (is_column or len(shape) == 1) or shape[0] < 0:
        raise InvalidRequest(f"{field}.shape", "must be [n] or [n, 1], with n texts")
    limits.check_count(f"{field}.shape", shape[0])
    if raw is None:
        elements = _typed_elements(field, tensor, shape[0])
    else:
        if tensor.contents.ByteSize():
            raise InvalidRequest(f"{field}.contents", "must be empty with raw_input_contents")
        elements = _raw_elements(f"raw_input_contents[{i}]", raw, shape[0])
    return TextTensor([_text(tensor.name, n, e) for n, e in enumerate(elements)], is_column)


def _typed_elements(
    field: str, tensor: Request.InferInputTensor, num_elements: int
) -> Sequence[bytes]:
    others = {name.name for name, _ in tensor.contents.ListFields()} - {CONTENTS[BYTES]}
    if others:
        raise InvalidRequest(f"{field}.contents", f"must have {CONTENTS[BYTES]} only")
    elements = tensor.contents.bytes_contents
    if len(elements) != num_elements:
        problem = f"must have {num_elements} bytes_contents by the shape, got {len(elements)}"
        raise InvalidRequest(f"{field}.contents", problem)
    return elements


def _raw_elements(field: str, raw: bytes, num_elements: int) -> Sequence[bytes]:
    elements, place = [], 0
    for _ in range(num_elements):
        start = place + LENGTH.size
        place = start + LENGTH.unpack_from(raw, place)[0] if start <= len(raw) else len(raw) + 1
        if place > len(raw):
            raise InvalidRequest(field, f"ends within the {num_elements} texts of the shape")
        elements.append(raw[start:place])
    if place != len(raw):
        raise InvalidRequest(field, f"has more than the {num_elements} texts of the shape")
    return elements


def _text(name: str, number: int, element: bytes) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name}[{number}]", "is not UTF-8") from None


def write_outputs(
    response: Response, outputs: dict[str, OutputTensor], is_column: bool, is_raw: bool
) -> None:
    """Add outputs to a response: raw ones, or such as have contents of their type.

    ``is_column``: whether scalars of texts have the shape (n, 1) instead of (n).
    """
    is_raw = is_raw or any(each.datatype not in CONTENTS for each in outputs.values())
    for name, output in outputs.items():
        num_rows = len(output.values) // output.num_columns if output.num_columns else 0
        flat = output.is_scalar and not is_column
        added = response.outputs.add(
            name=name,
            datatype=output.datatype,
            shape=(num_rows,) if flat else (num_rows, output.num_columns),
        )
        if is_raw:
            response.raw_output_contents.append(_raw(output))
        else:
            _fill_contents(added.contents, output)


def _raw(output: OutputTensor) -> bytes:
    if isinstance(output.values, np.ndarray):
        return np.asarray(output.values, DTYPES[output.datatype]).tobytes()
    encoded = [text.encode() for text in output.values]
    return b"".join(part for text in encoded for part in (LENGTH.pack(len(text)), text))


def _fill_contents(contents: grpc_service_pb2.InferTensorContents, output: OutputTensor) -> None:
    if isinstance(output.values, np.ndarray):
        getattr(contents, CONTENTS[output.datatype]).extend(output.values.tolist())
    else:
        contents.bytes_contents.extend(text.encode() for text in output.values)
