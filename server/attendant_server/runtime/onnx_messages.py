"""The parts of ONNX files that graphs of bundles may have, as protobuf messages.

ONNX has more fields. A file that uses one of them, such as functions or sparse initializers, is
refused, so that nothing in a graph escapes the checks.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

_PACKAGE = "attendant.server.onnx"
_INT64, _INT32 = FieldDescriptorProto.TYPE_INT64, FieldDescriptorProto.TYPE_INT32
_STRING, _BYTES = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES
_FLOAT = FieldDescriptorProto.TYPE_FLOAT
_FIELDS: dict[str, dict[str, tuple[int, Any]]] = {
    "Model": {
        "ir_version": (1, _INT64),
        "producer_name": (2, _STRING),
        "graph": (7, "Graph"),
        "opset_import": (8, ["OperatorSet"]),
    },
    "OperatorSet": {"domain": (1, _STRING), "version": (2, _INT64)},
    "Graph": {
        "node": (1, ["Node"]),
        "name": (2, _STRING),
        "initializer": (5, ["Tensor"]),
        "input": (11, ["Value"]),
        "output": (12, ["Value"]),
    },
    "Node": {
        "input": (1, [_STRING]),
        "output": (2, [_STRING]),
        "name": (3, _STRING),
        "op_type": (4, _STRING),
        "attribute": (5, ["Attribute"]),
        "domain": (7, _STRING),
    },
    "Attribute": {
        "name": (1, _STRING),
        "f": (2, _FLOAT),
        "i": (3, _INT64),
        "s": (4, _BYTES),
        "g": (6, "Graph"),
        "floats": (7, [_FLOAT]),
        "ints": (8, [_INT64]),
        "type": (20, _INT32),
    },
    "Tensor": {
        "dims": (1, [_INT64]),
        "data_type": (2, _INT32),
        "name": (8, _STRING),
        "raw_data": (9, _BYTES),
        "external_data": (13, ["Entry"]),
        "data_location": (14, _INT32),
    },
    "Entry": {"key": (1, _STRING), "value": (2, _STRING)},
    "Value": {"name": (1, _STRING), "type": (2, _BYTES)},
}
"""Number and type of each field by message. A list is a repeated field. ONNX Runtime checks the
types of inputs and outputs, which are messages in ONNX and bytes here."""
_OTHER_FIELDS = {
    ("Model", 20): "training_info",
    ("Model", 25): "functions",
    ("Graph", 15): "sparse_initializer",
    ("Attribute", 5): "t",
    ("Attribute", 11): "graphs",
    ("Attribute", 21): "ref_attr_name",
    ("Attribute", 22): "sparse_tensor",
}
"""Names, for messages, of some fields of ONNX that are refused."""


def parse_model(content: bytes) -> Any:
    """The model in an ONNX file. Raises ValueError for any field that is not in the list."""
    model = _Model()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise ValueError("is not an ONNX file") from None
    size = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != size:
        unknown = next(_unknown_fields(_Model.FromString(content)))
        raise ValueError(f"uses {unknown}, which graphs of bundles do not have")
    return model


def _unknown_fields(message: Message) -> Iterator[str]:
    name = message.DESCRIPTOR.name
    unknown = UnknownFieldSet(message)
    for number in (unknown[i].field_number for i in range(len(unknown))):
        field = _OTHER_FIELDS.get((name, number), f"number {number}")
        yield f"the field {field} of {name}Proto"
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for part in value if descriptor.is_repeated else [value]:
                yield from _unknown_fields(part)


def _model_class() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(
        name="attendant_server/onnx.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            is_repeated = isinstance(kind, list)
            kind = kind[0] if is_repeated else kind
            made = message.field.add(name=field, number=number)
            made.label = made.LABEL_REPEATED if is_repeated else made.LABEL_OPTIONAL
            if isinstance(kind, str):
                made.type, made.type_name = made.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                made.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))


_Model = _model_class()
