"""The `attendant` command: its errors and its exit codes.

Exits with 0 when all went well, 1 when something failed, 2 for wrong usage, 130 after Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from attendant_client import connection_flags
from attendant_client.argument_checks import check_together
from attendant_client.arguments import HEALTH_TIMEOUT_SECONDS, build_parser
from attendant_client.client import Client
from attendant_client.connection import DEFAULT_RETRY, DEFAULT_TIMEOUT_SECONDS
from attendant_client.errors import AttendantError, DeadlineExceededError, UnavailableError
from attendant_client.line_output import complain
from attendant_client.printing import prepare_output
from attendant_client.retries import RetryPolicy


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or the process's if None; return the exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    check_together(parser, arguments)
    prepare_output()
    try:
        code = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # The reader has gone.
        _discard_output()
    except AttendantError as error:
        complain(_explain(error, arguments))
    except OSError as error:
        complain(str(error))
        _discard_output()
    except ValueError as error:
        complain(str(error))
    return 1


def _discard_output() -> None:
    """Let the flush of the standard output at the end of the process succeed."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: argparse.Namespace) -> int:
    is_health = arguments.command == "health"
    arguments.call_timeout = arguments.timeout  # Bulk calls have no limit by default.
    if arguments.timeout is None:
        arguments.timeout = HEALTH_TIMEOUT_SECONDS if is_health else DEFAULT_TIMEOUT_SECONDS
    # A health check reports the present state, so it is not retried.
    retry = RetryPolicy(max_attempts=1) if is_health else DEFAULT_RETRY
    options = connection_flags.connection_options(arguments)
    with Client(
        arguments.target, timeout_seconds=arguments.timeout, retry=retry, **options
    ) as client:
        code: int = arguments.run(client, arguments)
        return code


def _explain(error: AttendantError, arguments: argparse.Namespace) -> str:
    if isinstance(error, UnavailableError):
        return f"{arguments.target} is unavailable: {error}"
    if isinstance(error, DeadlineExceededError):
        return f"no answer from {arguments.target} within {arguments.timeout:g} seconds"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
