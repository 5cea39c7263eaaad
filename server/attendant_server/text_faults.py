"""Faults of single texts in protocols that have none: the first one is that of the call."""

from collections.abc import Sequence
from typing import TypeVar

from attendant_server.errors import InvalidRequest

Result = TypeVar("Result")


def without_faults(results: Sequence[Result | InvalidRequest]) -> list[Result]:
    """The results of all texts; raises the fault of the first text that has one."""
    found = []
    for each in results:
        if isinstance(each, InvalidRequest):
            raise each
        found.append(each)
    return found
