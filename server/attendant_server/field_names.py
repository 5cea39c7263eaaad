"""Errors of the application with the names of another protocol."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from attendant_server.errors import InvalidRequest


def renamed(error: InvalidRequest, names: Mapping[str, str]) -> InvalidRequest:
    """The error with another name of its field: of all of it, or of the part before a bracket."""
    field = error.field
    name, bracket, rest = field.partition("[")
    error.field = names.get(field) or f"{names.get(name, name)}{bracket}{rest}"
    error.args = (f"{error.field}: {error.problem}",)
    return error


@contextmanager
def renamed_fields(names: Mapping[str, str]) -> Iterator[None]:
    """Let the errors of the block name fields as ``names`` says."""
    try:
        yield
    except InvalidRequest as error:
        raise renamed(error, names) from None
