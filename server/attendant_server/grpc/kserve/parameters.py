"""Request parameters of KServe as fields of a message of attendant.v1, by their names."""

import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, TypeAlias

from attendant_vendored.inference import grpc_service_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from attendant_server.errors import InvalidRequest

Parameters: TypeAlias = Mapping[str, grpc_service_pb2.InferParameter]
Path: TypeAlias = tuple[FieldDescriptor, ...]

FLATTENED = ("options", "sampling")
"""Fields whose own fields are parameters as well."""
INTEGERS = (
    *(FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64),
    *(FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64),
)
FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_FIT_NAME = re.compile(r"\w{1,64}", re.ASCII)


def set_parameters(message: Message, parameters: Parameters, without: Collection[str]) -> None:
    """Set the fields of a message that parameters name.

    ``without`` are fields that are no parameters. Parameters of lists, maps and messages are JSON.
    Raises InvalidRequest for unknown names and bad values.
    """
    fields = _fields(message.DESCRIPTOR, frozenset(without))
    for name, parameter in parameters.items():
        if name not in fields:
            raise unknown_parameter(name, fields)
        _set(message, name, fields[name], parameter)


def unknown_parameter(name: str, known: Collection[str]) -> InvalidRequest:
    """The error for a parameter that is not one of ``known``."""
    shown = name if _FIT_NAME.fullmatch(name) else "parameters"
    return InvalidRequest(shown, f"no such parameter; there are {', '.join(sorted(known))}")


def value_of(name: str, parameter: grpc_service_pb2.InferParameter) -> Any:
    """The value of a parameter; raises InvalidRequest for one without."""
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        raise InvalidRequest(name, "has no value")
    return getattr(parameter, choice)


@cache
def _fields(descriptor: Descriptor, without: frozenset[str]) -> dict[str, Path]:
    """The fields of a message, and of those in it that are flattened, by name."""
    found: dict[str, Path] = {}
    for field in descriptor.fields:
        if field.name in without:
            continue
        if field.name in FLATTENED:
            inner = _fields(field.message_type, without)
            found |= {name: (field, *path) for name, path in inner.items()}
        if field.name != "options":
            found[field.name] = (field,)
    return found


def _set(message: Any, name: str, path: Path, parameter: grpc_service_pb2.InferParameter) -> None:
    value = value_of(name, parameter)
    for outer in path[:-1]:
        message = getattr(message, outer.name)
    field = path[-1]
    if field.is_repeated or field.message_type is not None:
        _set_from_json(message, name, field, value)
        return
    converted = _converted(name, field, value)
    try:
        setattr(message, field.name, converted)
    except ValueError:
        raise InvalidRequest(name, "is out of range") from None


def _set_from_json(message: Any, name: str, field: FieldDescriptor, value: Any) -> None:
    if field.name in FLATTENED and isinstance(value, bool):
        if value:
            getattr(message, field.name).SetInParent()
        return
    problem = f"must be a string with JSON for the field {field.full_name}"
    if not isinstance(value, str):
        raise InvalidRequest(name, problem)
    try:
        parsed = json.loads(value)
        if not field.is_repeated and not isinstance(parsed, dict):  # ParseDict takes [] for {}
            raise ValueError(problem)
        json_format.ParseDict({field.name: parsed}, message)
    except (json_format.ParseError, ValueError, RecursionError):
        raise InvalidRequest(name, problem) from None


def _converted(name: str, field: FieldDescriptor, value: Any) -> Any:
    """The value of a parameter in the type of a field; numbers may be strings."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _bool(name, value)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _string(name, value)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_number(name, field, value)
    try:
        if kind in FLOATS and not isinstance(value, bool):
            return float(value)
        if kind in INTEGERS and not isinstance(value, bool) and int(value) == float(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest(name, "must be a number" if kind in FLOATS else "must be a whole number")


def _bool(name: str, value: Any) -> bool:
    found = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise InvalidRequest(name, "must be true or false")
    return found


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(name, "must be a string")
    return value


def _enum_number(name: str, field: FieldDescriptor, value: Any) -> int:
    enum = field.enum_type
    assert enum is not None
    if isinstance(value, str) and value in enum.values_by_name:
        return int(enum.values_by_name[value].number)
    if isinstance(value, int) and not isinstance(value, bool) and value in enum.values_by_number:
        return value
    raise InvalidRequest(name, f"must be one of {', '.join(enum.values_by_name)}")
