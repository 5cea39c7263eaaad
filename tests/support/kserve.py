"""Requests of KServe and the values of their answers, as its clients make and read them."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attendant_vendored.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

DTYPES = {"FP32": "<f4", "FP16": "<f2", "INT8": "i1", "INT32": "<i4", "UINT8": "u1"}


def raw_texts(texts: Sequence[str]) -> bytes:
    """The texts of a raw tensor of type BYTES."""
    encoded = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(each)) + each for each in encoded)


def infer_request(
    model: str,
    inputs: Mapping[str, Sequence[str]],
    *,
    is_raw: bool = True,
    is_column: bool = False,
    outputs: Sequence[str] = (),
    **parameters: Any,
) -> ModelInferRequest:
    """A request with texts as inputs, by name."""
    request = ModelInferRequest(model_name=model, id="42")
    for name, texts in inputs.items():
        shape = [len(texts), 1] if is_column else [len(texts)]
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=shape)
        if is_raw:
            request.raw_input_contents.append(raw_texts(texts))
        else:
            tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    for name in outputs:
        request.outputs.add(name=name)
    for name, value in parameters.items():
        kind = {bool: "bool", int: "int64", float: "double", str: "string"}[type(value)]
        setattr(request.parameters[name], f"{kind}_param", value)
    return request


def values(response: ModelInferResponse) -> dict[str, Any]:
    """The outputs of a response, by name: arrays of numbers or of texts."""
    raw = response.raw_output_contents
    assert not raw or len(raw) == len(response.outputs)
    return {
        output.name: _array(output, raw[i] if raw else None).reshape(output.shape)
        for i, output in enumerate(response.outputs)
    }


def _array(output: ModelInferResponse.InferOutputTensor, raw: bytes | None) -> Any:
    if output.datatype == "BYTES":
        elements = output.contents.bytes_contents if raw is None else _elements(raw)
        return np.array([element.decode() for element in elements], object)
    if raw is not None:
        return np.frombuffer(raw, DTYPES[output.datatype])
    [(_, contents)] = output.contents.ListFields()
    return np.array(contents, DTYPES[output.datatype])


def _elements(raw: bytes) -> list[bytes]:
    elements, place = [], 0
    while place < len(raw):
        (length,) = struct.unpack_from("<I", raw, place)
        elements.append(raw[place + 4 : place + 4 + length])
        place += 4 + length
    return elements
