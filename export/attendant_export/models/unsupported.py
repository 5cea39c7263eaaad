"""The error for an architecture that this version cannot build."""

from google.protobuf.message import Message


def unsupported(part: Message, field: str, reason: str = "is not supported") -> ValueError:
    """An error that names a field of a part, its value and the reason."""
    descriptor, value = part.DESCRIPTOR.fields_by_name[field], getattr(part, field)
    if descriptor.enum_type is not None:
        known = descriptor.enum_type.values_by_number.get(value)
        value = known.name if known is not None else value
    return ValueError(f"{part.DESCRIPTOR.name}.{field}: {value} {reason}")


def check_at_least_one(part: Message, *fields: str) -> None:
    """Raise ValueError if one of the fields, a width or a count, is 0."""
    for field in fields:
        if getattr(part, field) < 1:
            raise unsupported(part, field, "is less than 1")
