"""Texts of requests in protocols that also have token ids there."""

from typing import Any

from attendant_server.errors import InvalidRequest


def texts_of(given: Any, field: str, problem: str) -> tuple[list[str], dict[str, str]]:
    """The texts of a field, and the names of their fields by those of the application.

    Raises InvalidRequest with ``problem`` for token ids.
    """
    if isinstance(given, str):
        return [given], {"texts": field, "texts[0]": field}
    if not all(isinstance(each, str) for each in given):
        raise InvalidRequest(field, problem)
    return given, {"texts": field}
