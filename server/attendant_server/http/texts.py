"""Texts of requests and their results, for protocols that have no faults of single texts."""

from collections.abc import Sequence
from typing import Any, TypeVar

from attendant_server.errors import InvalidRequest

Result = TypeVar("Result")


def texts_of(given: Any, field: str, problem: str) -> tuple[list[str], dict[str, str]]:
    """The texts of a field, and the names of their fields by those of the application.

    Raises InvalidRequest with ``problem`` for token ids.
    """
    if isinstance(given, str):
        return [given], {"texts": field, "texts[0]": field}
    if not all(isinstance(each, str) for each in given):
        raise InvalidRequest(field, problem)
    return given, {"texts": field}


def whole(results: Sequence[Result | InvalidRequest]) -> list[Result]:
    """The results of all texts; raises the fault of the first text that has one."""
    found = []
    for each in results:
        if isinstance(each, InvalidRequest):
            raise each
        found.append(each)
    return found
