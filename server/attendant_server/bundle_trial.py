"""Tries bundles in a child process before the server loads them.

A bundle that crashes, hangs or takes too much memory thus ends its trial, and not the server.
"""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from attendant_server.bundles import Bundle, BundleError
from attendant_server.settings import Settings

CHILD = "attendant_server.trial_process"
REFUSED = 3
"""Exit code of a child that refuses the bundle, with the reason on its standard output."""
MEMORY_PER_BYTE = 8
"""Bytes of memory for each byte of a bundle: graphs are opened once each, with packed weights."""
GRACE_SECONDS = 5.0
"""The child ends itself at its time limit; this much later, it is killed."""
_GIB = 1024**3


def try_bundle(copy: Bundle, settings: Settings) -> None:
    """Load the checked copy of a bundle in a child process. Raises BundleError if that fails."""
    seconds = math.ceil(settings.trial_seconds * (1 + copy.num_loaded_bytes / _GIB))
    max_bytes = settings.trial_memory_bytes + MEMORY_PER_BYTE * copy.num_loaded_bytes
    arguments = (
        *(copy.directory, copy.copies, copy.precision, settings.device, settings.shortlists),
        *(seconds, max_bytes, os.getpid()),
    )
    # -P: no module comes from the working directory, which may be the folder of the bundles.
    command = [sys.executable, "-P", "-m", CHILD, *map(str, arguments)]
    problem = _problem_of(command, copy, seconds)
    if problem:
        raise BundleError(f"{copy.directory}: {problem}")


def _problem_of(command: Sequence[str], copy: Bundle, seconds: int) -> str:
    manifest = copy.manifest.SerializeToString()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            output, _ = child.communicate(manifest, timeout=seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            return f"loading it on trial took longer than {seconds} s"
    if child.returncode == REFUSED:
        return output.decode("utf-8", "replace")
    if child.returncode == -signal.SIGALRM:
        return f"loading it on trial took longer than {seconds} s"
    if child.returncode < 0:
        return f"loading it on trial crashed with {signal.Signals(-child.returncode).name}"
    return f"loading it on trial ended with code {child.returncode}" if child.returncode else ""
