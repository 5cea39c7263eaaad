"""Starts real servers for a measurement and reads their metrics and resource use."""

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import grpc

ONE_OF_EACH_KIND = "--models=bert-en-de,en-de"
"""The built-in models that are the defaults of their kinds."""

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server process under measurement."""

    target: str
    metrics_url: str = ""
    """URL of the metrics. Empty for a server without metrics."""
    pid: int = 0
    """Process id. 0 for a server that the bench did not start."""
    root_certificate: bytes = b""
    """PEM of the authority of a server with TLS; empty for one without."""
    token: str = field(default="", repr=False)
    """What callers authenticate with; empty for a server that knows no callers."""

    @property
    def metadata(self) -> Metadata:
        """The metadata that each call needs."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def total(self, name: str) -> float:
        """The sum of all samples of a metric."""
        samples = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", self.read_metrics(), re.MULTILINE)
        return sum(map(float, samples))

    def read_metrics(self) -> str:
        """The content of ``/metrics``."""
        with urllib.request.urlopen(self.metrics_url) as response:
            text: str = response.read().decode()
        return text

    def cpu_seconds(self) -> float:
        """Processor time that all threads of the server's process have used so far."""
        return _cpu_seconds(Path(f"/proc/{self.pid}"))

    def event_loop_cpu_seconds(self) -> float:
        """Processor time that the thread of the server's event loop, the first, has used so far."""
        return _cpu_seconds(Path(f"/proc/{self.pid}/task/{self.pid}"))

    def resident_bytes(self) -> int:
        """Resident memory of the server's process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def peak_resident_bytes(self) -> int:
        """The most memory that the server's process has had in use so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0])


def _cpu_seconds(folder: Path) -> float:
    """Processor time of the process or thread with this folder of /proc."""
    # The name, which may hold spaces, ends at the last bracket.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def flags_for(bundle: Path) -> list[str]:
    """Flags for a server of one model in the folder ``<bundles>/<name>/<version>``."""
    return [f"--bundles={bundle.parent.parent}", f"--models={bundle.parent.name}"]


@contextmanager
def running_server(
    *arguments: str, log: IO[bytes] | None = None, python: str | Path = sys.executable
) -> Iterator[RunningServer]:
    """The attendant server with the given flags in its own process, ready when the block begins.

    Its log goes to the file ``log``, by default to standard error. ``python`` is the interpreter of
    the environment in which the server is installed.
    """
    port, metrics_port = free_ports(2)
    command = [str(python), "-m", "attendant_server"]
    command += ["--host=127.0.0.1", f"--port={port}", "--log-level=warning"]
    command += [f"--metrics-port={metrics_port}", "--lame-duck-seconds=0", *arguments]
    with running_program(command, log) as pid:
        metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        yield RunningServer(f"127.0.0.1:{port}", metrics_url, pid)


@contextmanager
def given_server(target: str | None, *arguments: str) -> Iterator[RunningServer]:
    """The running server at ``target``; without one, a server with the given flags."""
    if target:
        yield RunningServer(target)
    else:
        with running_server(*arguments) as running:
            yield running


@contextmanager
def running_program(command: Sequence[str], log: IO[bytes] | None = None) -> Iterator[int]:
    """A program that prints a line with "serving" when it is ready; yields its process id."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        assert process.stdout is not None
        try:
            if "serving" not in process.stdout.readline():
                raise SystemExit(f"did not start: {' '.join(command)}")
            yield process.pid
        finally:
            process.terminate()


def open_channel(server: RunningServer) -> grpc.aio.Channel:
    """One direct connection to a server, without proxy, retries or a limit on answer sizes."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    options.append(("grpc.use_local_subchannel_pool", 1))  # not the connection of another channel
    if server.root_certificate:
        credentials = grpc.ssl_channel_credentials(server.root_certificate)
        return grpc.aio.secure_channel(server.target, credentials, options=options)
    return grpc.aio.insecure_channel(server.target, options=options)


def free_port() -> int:
    """An unused port of this machine."""
    return free_ports(1)[0]


def free_ports(num_ports: int) -> list[int]:
    """Different unused ports of this machine."""
    with ExitStack() as stack:  # all are held at the same time, so that none is found twice
        sockets = [stack.enter_context(socket.socket()) for _ in range(num_ports)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
