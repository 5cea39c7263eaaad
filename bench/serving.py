"""Starting a real server for a measurement and reading its counters."""

import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunningServer:
    """Where a server that was started for a measurement listens."""

    target: str
    metrics_url: str

    def counters(self) -> dict[str, float]:
        """All samples of ``/metrics``, by name and labels as they are written there."""
        with urllib.request.urlopen(self.metrics_url) as response:
            text = response.read().decode()
        pattern = re.compile(r"^(\w+(?:\{.*\})?) (\S+)$", re.MULTILINE)
        return {name: float(value) for name, value in pattern.findall(text)}


@contextmanager
def running_server(*arguments: str) -> Iterator[RunningServer]:
    """A server with these flags, in a process of its own, ready when the block begins."""
    port, metrics_port = _free_port(), _free_port()
    command = [sys.executable, "-m", "attendant_server", *arguments]
    command += ["--host=127.0.0.1", f"--port={port}", "--log-level=warning"]
    command += [f"--metrics-port={metrics_port}", "--lame-duck-seconds=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if "serving" not in process.stdout.readline():
                raise SystemExit("the server did not start")
            yield RunningServer(f"127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics")
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
