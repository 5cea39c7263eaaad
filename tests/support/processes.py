"""Real processes of the server for tests, on free ports."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

MODULE = ("-m", "attendant_server")


def server_command(bundles: Path, *flags: str, program: Sequence[str] = MODULE) -> list[str]:
    """The command of a server on free ports. ``flags`` override the defaults."""
    ports = ["--port", "0", "--metrics-port", "0", "--host", "127.0.0.1"]
    return [sys.executable, *program, "--bundles", str(bundles), *ports, *flags]


@contextmanager
def server_process(
    bundles: Path,
    *flags: str,
    program: Sequence[str] = MODULE,
    variables: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run the command; killed after the block. ``variables`` are added to the environment."""
    with subprocess.Popen(
        server_command(bundles, *flags, program=program),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | (variables or {}),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def port_of(process: "subprocess.Popen[str]") -> int:
    """The port of gRPC, as soon as the server is serving."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("attendant is serving on port ")
    return int(line.split()[5].rstrip(":"))


def line_of(event: str, process: "subprocess.Popen[str]") -> str:
    """The next log line with this event, as soon as it is written."""
    assert process.stderr is not None
    return next(line for line in process.stderr if f"event={event} " in f"{line.strip()} ")


def last_line(process: "subprocess.Popen[str]") -> str:
    """The last log line of a process that ends."""
    assert process.stderr is not None
    return process.stderr.read().splitlines()[-1]
