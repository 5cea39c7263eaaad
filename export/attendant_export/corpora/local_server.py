"""A server of one bundle on this machine, in a process that ends with this one."""

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from attendant_export.bundle.manifest import BundleError

SERVER = "attendant_server"
STOP_SECONDS = 30.0
"""How long a server may take to stop before it is killed."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@contextmanager
def local_server(bundle: Path, num_threads: int | None) -> Iterator[str]:
    """Start a server of ``bundle``, ``.../<name>/<version>``, and yield its target.

    ``num_threads`` is the number of its threads; None: one for each core. Its warnings and errors
    go to standard error. Raises ValueError if the server is not installed, and BundleError if it
    does not start.
    """
    if importlib.util.find_spec(SERVER) is None:
        raise ValueError("--bundle: needs a server, pip install 'attendant-server[cpu]'")
    bundle = bundle.resolve()
    command = [sys.executable, "-m", SERVER]
    command += [f"--bundles={bundle.parent.parent}", f"--models={bundle.parent.name}/{bundle.name}"]
    command += ["--host=127.0.0.1", "--port=0", "--metrics-port=-1", "--log-level=warning"]
    command += ["--lame-duck-seconds=0", f"--num-threads={num_threads or 0}"]
    process = None
    # No `with`: it would wait for ever for a server that nobody has stopped.
    try:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            # Settings for other servers of this machine must not count.
            env={k: value for k, value in os.environ.items() if not k.startswith("ATTENDANT")},
            start_new_session=True,  # Ctrl-C is for this process, which then stops the server.
            preexec_fn=partial(_end_with, os.getpid()),
        )
        yield f"127.0.0.1:{_port(process, bundle)}"
    finally:
        if process is not None:
            _stop(process)


def _end_with(parent: int) -> None:
    """Let the system end this process when its parent is killed, or end it if that has happened.

    Has an effect on Linux only.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def _port(process: "subprocess.Popen[str]", bundle: Path) -> int:
    assert process.stdout is not None
    words = process.stdout.readline().split()
    if "serving" not in words:
        raise BundleError(f"{bundle}: the server did not start; its messages are above")
    return int(words[words.index("port") + 1].rstrip(":"))


def _stop(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        process.kill()  # Has no effect on a process that has ended.
        process.wait()
        process.stdout.close()
