"""Answers as JSON values: the content of all responses except times and generated ids.

- A float is the shortest decimal number that rounds to the same 32 bits.
- A token or a candidate is a list of its fields, in the order of the contract.
- A tensor is its shape, some of its values and the SHA-256 of all values.
- Timings are only the names of the phases.
- The messages of a streamed translation are one message: how a text is divided depends on timing.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from attendant.v1 import embedding_pb2
from google.protobuf import json_format, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tests.recorded.call import REQUEST_ID

Answer = dict[str, Any]
Metadata = Iterable[tuple[str, str | bytes]]

assert error_details_pb2  # the import is needed to decode the details of a status
STATUS = "grpc-status-details-bin"
NUM_TENSOR_VALUES = 24
FORMATS = {
    embedding_pb2.DATA_TYPE_FLOAT32: "<f4",
    embedding_pb2.DATA_TYPE_FLOAT16: "<f2",
    embedding_pb2.DATA_TYPE_INT8: "i1",
    embedding_pb2.DATA_TYPE_UINT8: "u1",
    embedding_pb2.DATA_TYPE_BINARY: "u1",
}
_ROWS = ("attendant.v1.Token", "attendant.v1.OutputToken", "attendant.v1.MaskCandidate")
_GENERATED_ID = re.compile(r"\b[0-9a-f]{16}\b")


def readable_response(descriptor: Any, content: bytes) -> Answer:
    """A response of the type of ``descriptor``."""
    message: Message = message_factory.GetMessageClass(descriptor)()
    message.ParseFromString(content)
    readable = _readable_message(message)
    num_bytes = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() < num_bytes:
        readable["bytes of unknown fields"] = num_bytes - message.ByteSize()
    return readable


def joined_pieces(messages: list[Answer]) -> list[Answer]:
    """The messages of a streamed text as one message with the whole delta."""
    text = "".join(message.get("delta", "") for message in messages)
    return [{"delta": ""} | messages[-1] | {"delta": text}] if messages else []


def readable_end(code: str, message: str, trailing: Metadata, sent: Mapping[str, str]) -> Answer:
    """The end of a call. A request id is included only if it differs from the one sent."""
    readable: Answer = {"code": code}
    if message:
        readable["message"] = _without_generated_id(message)
    metadata = dict(trailing)
    if STATUS in metadata:
        readable["status"] = _readable_status(metadata.pop(STATUS), readable)
    request_id = metadata.pop(REQUEST_ID, None)
    if request_id is None or request_id != sent.get(REQUEST_ID):
        readable[REQUEST_ID] = request_id and _without_generated_id(str(request_id))
    if metadata:
        readable["trailing_metadata"] = {key: str(metadata[key]) for key in sorted(metadata)}
    return readable


def _readable_message(message: Message) -> Any:
    name = message.DESCRIPTOR.full_name
    if name == "attendant.v1.Tensor":
        return _readable_tensor(message)
    if name == "attendant.v1.Timings":
        return [phase.name for phase, _ in message.ListFields()]
    if name in _ROWS:
        values = json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return [values[field.name] for field in message.DESCRIPTOR.fields]
    readable = json_format.MessageToDict(message, preserving_proto_field_name=True)
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.full_name.startswith("attendant"):
            is_one = isinstance(value, Message)
            readable[field.name] = (
                _readable_message(value) if is_one else list(map(_readable_message, value))
            )
    return readable


def _readable_tensor(tensor: Any) -> Answer:
    values = np.frombuffer(tensor.data, FORMATS[tensor.dtype])
    # An odd step, so that the values come from several columns.
    distance = max(1, values.size // NUM_TENSOR_VALUES) | 1
    return {
        "dtype": embedding_pb2.DataType.Name(tensor.dtype),
        "shape": list(tensor.shape),
        "distance of values": distance,
        "values": [float(str(value)) for value in values[::distance]],
        "sha256": hashlib.sha256(tensor.data).hexdigest(),
    }


def _readable_status(content: str | bytes, end: Answer) -> Any:
    """The details of a status, which must agree with the end of the call."""
    assert isinstance(content, bytes)
    status = status_pb2.Status.FromString(content)
    readable = json_format.MessageToDict(status, preserving_proto_field_name=True)
    if readable.get("message") == end.get("message"):
        readable.pop("message", None)
    return readable


def _without_generated_id(text: str) -> str:
    return _GENERATED_ID.sub("<generated>", text)
