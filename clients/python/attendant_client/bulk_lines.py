"""How the lines of files are asked for: by bulk calls where there are some, several at a time.

A bulk call of a part of the lines waits for room on its server, while an ordinary call would be
refused. It goes on at another server when its own one ends. Each part is a call of its own, so that
a server that comes back soon gets its share again.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc

from attendant_client.bulk_results import BulkResults
from attendant_client.input_lines import Line
from attendant_client.results import TextResult

Result = TypeVar("Result", bound=TextResult)
BULK_BATCH_SIZE = 256
"""Lines of a bulk call: as many as a server works on at a time."""
MIN_PARALLEL = 4
"""Calls at a time, whatever the number of servers."""
MAX_WAITING_CHARACTERS = 8 << 20
"""No further lines are read while those without a written result have this many characters."""
_LIMITS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""Faults of a text that it has each time."""


def in_bulk(arguments: argparse.Namespace) -> bool:
    """Whether the command asks by bulk calls."""
    if arguments.input is None:
        return False
    if arguments.command == "translate":
        return arguments.target_prefix is None and arguments.target_prefix_bias is None
    return bool(arguments.command == "embed")


def parallel(arguments: argparse.Namespace) -> int:
    """Calls at a time: enough to keep the servers of a list busy while some calls end."""
    return arguments.parallel or max(MIN_PARALLEL, 2 * len(arguments.target.split(",")))


def results_of(
    lines: Sequence[Line], call: BulkResults[Result], ask: Callable[[Line], Result]
) -> list[Result]:
    """The results of a bulk call for lines.

    A fault that may be one of the moment, such as the deadline of a busy server, is no result: the
    line is asked for once more by `ask`, alone, which raises CallError if the server fails again.
    """
    with call:
        found = list(call)
    return [
        ask(line) if result.error is not None and result.error.code not in _LIMITS else result
        for line, result in zip(lines, found, strict=True)
    ]
